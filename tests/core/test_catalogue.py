"""The catalogue knows each failure by the text that programs really print, and nothing of what is fine."""

from __future__ import annotations

import re

import pytest

from shipway.errors import ShipwayError
from shipway.known_failures.catalogue import KNOWN, VAGUE, Known, diagnose, failure
from shipway.redact import redact
from shipway.script import Output
from tests.core.catalogue_fine import FINE_TEXTS
from tests.core.catalogue_samples import KNOWN_TEXTS

WAITED = "[kubelet-check] Initial timeout of 40s passed.\nerror execution phase wait-control-plane: couldn't initialize"
SAMPLES = [(code, text) for code, texts in KNOWN_TEXTS.items() for text in texts]


def test_every_entry_has_a_text_and_every_text_an_entry() -> None:
    assert sorted(KNOWN_TEXTS) == sorted(entry.code for entry in KNOWN)


@pytest.mark.parametrize(("code", "text"), SAMPLES, ids=[f"{code}-{text[:30]!r}" for code, text in SAMPLES])
def test_a_known_text_is_known_by_its_entry(code: str, text: str) -> None:
    for seen in (text, redact(f"before\n{text}\nafter\n")):
        entry = diagnose(seen)
        assert entry is not None
        assert entry.code == code, entry.title


# Outputs in which several entries find their text, with the codes that may stand behind the reported one: either
# an effect beside its cause, or the common case behind the special one. Any other meeting is an entry too wide.
BEHIND = {
    "SHW-359": {"SHW-405"},
    "SHW-407": {"SHW-405", "SHW-444"},
    "SHW-412": {"SHW-405"},
    "SHW-422": {"SHW-405"},
    "SHW-425": {"SHW-450"},
    "SHW-430": {"SHW-447"},
    "SHW-435": {"SHW-432"},
    "SHW-440": {"SHW-487"},
    "SHW-441": {"SHW-487"},
    "SHW-444": {"SHW-439", "SHW-487"},
    "SHW-446": {"SHW-412", "SHW-441"},
    "SHW-724": {"SHW-413"},
    "SHW-471": {"SHW-473", "SHW-474"},
    "SHW-472": {"SHW-474"},
}


def test_no_two_entries_know_one_output_but_where_one_is_behind_the_other() -> None:
    met: dict[str, set[str]] = {}
    for code, text in SAMPLES:
        others = {entry.code for entry in KNOWN if entry.code != code and re.search(entry.pattern, text)}
        met[code] = met.get(code, set()) | others
    assert {code: others for code, others in met.items() if others} == BEHIND


@pytest.mark.parametrize(
    ("code", "heard"),
    [
        ("SHW-423", ("7h 39min 41s", "http://archive.ubuntu.com/ubuntu/dists/jammy/InRelease", "date -u")),
        ("SHW-424", ("3d 2h 1min 2s", "http://deb.debian.org/debian/dists/bookworm-updates/InRelease")),
        ("SHW-425", ("http://archive.ubuntu.com/ubuntu", "kinetic")),
        ("SHW-426", ("/etc/apt/keyrings/docker.gpg", "/etc/apt/keyrings/shipway-docker.asc")),
        ("SHW-427", ("head -5 /etc/apt/sources.list.d/nvidia-container-toolkit.list",)),
        ("SHW-428", ("https://mirror.corp.example/dists/stable/InRelease",)),
        ("SHW-429", ("apt-cache policy nvidia-dkms-535",)),
        ("SHW-430", ("linux-headers-6.8.0-45-generic", "nvidia-dkms-535")),
        ("SHW-444", ("harbor.corp.example/k8s/pause",)),
        ("SHW-445", ("https://10.0.0.9:5000",)),
        ("SHW-447", ("dpkg --configure kubelet",)),
        ("SHW-448", ("apt-get install conntrack",)),
    ],
)
def test_cause_and_fix_name_the_clock_the_package_and_the_address_of_the_output(
    code: str, heard: tuple[str, ...]
) -> None:
    error = failure("apt-get update", Output(100, "", KNOWN_TEXTS[code][0]), host="gpu-01")
    assert error.code == code
    assert error.may_retry == (code == "SHW-423"), "a clock that is being set comes right by itself; nothing else here"
    for words in heard:
        assert words in f"{error.message.split(' (`apt-get update`')[0]} {error.fix}"


@pytest.mark.parametrize("word", ["a;reboot", "$(reboot)", "a b", "`id`", "x\nreboot", "-rf"])
def test_nothing_that_a_host_prints_becomes_a_part_of_a_command(word: str) -> None:
    lines = (
        f"E: The package {word} needs to be reinstalled, but I can't find an archive for it.",
        f"E: Type 'x' is not known on line 1 in source list /etc/{word}",
        f"\t[ERROR FileExisting-{word}]: {word} not found in system path",
        f" installed {word} package post-installation script subprocess returned error exit status 1",
    )
    for line in lines:
        entry = diagnose(line)
        assert entry is None or f" {word}" not in entry.fix
        assert entry is None or f"/{word}" not in entry.fix or word == "-rf"


@pytest.mark.parametrize("text", FINE_TEXTS, ids=[text[:30] for text in FINE_TEXTS])
def test_what_is_fine_is_no_failure(text: str) -> None:
    entry = diagnose(text)
    assert entry is None, entry.code
    assert not any(re.search(vague.pattern, text) for vague in VAGUE)


def test_no_entry_knows_an_empty_or_a_plain_text() -> None:
    assert diagnose("") is None
    assert diagnose("exit status 1") is None


@pytest.mark.parametrize("entry", [*KNOWN, *VAGUE], ids=lambda entry: entry.code)
def test_an_entry_says_cause_and_something_to_do(entry: Known) -> None:
    assert entry.cause.endswith(".")
    assert entry.fix.endswith((".", "`."))
    assert re.search(r"`|Wait|Run again|cluster file", entry.fix), "neither a command nor a key to change"
    assert not entry.title.endswith(".")


def test_a_failure_has_the_entrys_cause_fix_and_whether_to_retry() -> None:
    text = KNOWN_TEXTS["SHW-401"][0]
    error = failure("apt-get install", Output(100, "", text), host="gpu-01")
    assert (error.code, error.may_retry, error.exit_status, error.host) == ("SHW-401", True, 100, "gpu-01")
    assert error.message.startswith("Another package manager is at work")
    assert "`apt-get install` ended with exit status 100" in error.message
    assert "cloud-init status --wait" in error.fix


def test_a_vague_failure_keeps_the_common_code_so_that_evidence_is_looked_for() -> None:
    error = failure("kubeadm init", Output(1, "", WAITED))
    assert error.code == error.default_code == "SHW-400"
    assert error.message.startswith("kubeadm waited for the control plane in vain")
    assert "ctr -n k8s.io tasks ls" in error.fix


def test_no_advice_rests_on_a_program_that_no_package_must_bring() -> None:
    """From 1.32 on kubeadm's package does not bring crictl; containerd's always brings ctr."""
    kinds = [ShipwayError, *_below(ShipwayError)]
    fixes = [*(entry.fix for entry in (*KNOWN, *VAGUE)), *(kind.default_fix for kind in kinds)]
    assert [fix for fix in fixes if any("crictl" in words for words in re.findall("`([^`]*)`", fix))] == []


def _below(kind: type[ShipwayError]) -> list[type[ShipwayError]]:
    return [one for below in kind.__subclasses__() for one in (below, *_below(below))]


def test_an_unknown_failure_says_what_was_said() -> None:
    error = failure("false", Output(1, "", ""))
    assert (error.code, error.may_retry) == ("SHW-400", False)
    assert "no output" in error.message
    assert failure("x", Output(2, "out\n", "err\n")).message.endswith("err")


def test_the_line_that_tells_the_failure_is_not_hidden_among_what_is_always_said() -> None:
    said = (
        "[init] Using Kubernetes version: v1.20.2\n[preflight] Running pre-flight checks\n"
        "error execution phase preflight: [preflight] Some fatal errors occurred:\n\t[ERROR Port-6443]: Port 6443 is "
        "in use\n[preflight] If you know what you are doing, you can make a check non-fatal with "
        "`--ignore-preflight-errors=...`\nTo see the stack trace of this error execute with --v=5 or higher\n"
    )
    error = failure("kubeadm init", Output(1, said, ""))
    assert error.code == "SHW-474"
    assert error.message.endswith("errors occurred:\n\t[ERROR Port-6443]: Port 6443 is in use)")
