"""The catalogue knows each failure by the text that programs really print, and nothing of what is fine."""

from __future__ import annotations

import re

import pytest

from shipway.catalogue import KNOWN, VAGUE, Known, diagnose, failure
from shipway.redact import redact
from shipway.script import Output
from tests.catalogue_fine import FINE_TEXTS
from tests.catalogue_samples import KNOWN_TEXTS

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
    assert "crictl ps -a" in error.fix


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
