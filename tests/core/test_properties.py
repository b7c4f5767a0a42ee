"""Any text in: parsers give a value or one of our errors, never a crash; words stay words in a real shell."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipway.backup.state import BackupsThere
from shipway.cluster_file import parse_cluster
from shipway.edits import containerd as containerd_config
from shipway.edits.containerd import UnreadableError, Wanted
from shipway.errors import Refused, ShipwayError
from shipway.facts.boot import BootIs
from shipway.facts.certificates import CertificateAt, CertificateIn, expires
from shipway.facts.commands import Says, Watched
from shipway.facts.fact import Fact, Plan
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.kernel import Sysctl
from shipway.facts.services import UnitState
from shipway.facts.static_pods import StaticPodFlags, StaticPodsRunning
from shipway.facts.versions import ProgramVersion, StaticPodImages
from shipway.gpu.health.nvidia.links import read_link_errors
from shipway.gpu.health.ports import HostPorts, judge_ports, read_ports
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.kube.access import parse_admin_conf
from shipway.kube.errors import refusal, status_of
from shipway.kubeadm.config import ca_hash
from shipway.os.debian.dpkg import Installed, Package
from shipway.os.debian.packages import offers, version_matches
from shipway.os.debian.updates import find_pending
from shipway.os.release import os_release
from shipway.redact import redact, tail
from shipway.script import Output, compose, split
from shipway.steps.authority.leafs import SignedBy
from shipway.steps.authority.trust import Accepts
from shipway.steps.backup.kept import FilePart
from shipway.steps.hardening.key import KeysThere
from shipway.steps.hardening.stored import SecretsStored
from shipway.steps.maintain.restart import find_inhibitors, find_kernels
from shipway.survey.first_look import addresses_of

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
HOSTILE = st.one_of(
    st.text(max_size=400),
    st.text("|= \n\t\x00\x1b-:.0123456789abcdefii", max_size=400),
    st.sampled_from(["", "\n", "|||||", "\x00" * 50, "9" * 5000, "﻿", "a=b=c", "{", "[" * 2000, "- " * 500, "&a [*a]"]),
)
OUTPUTS = st.builds(Output, st.integers(0, 255), HOSTILE, HOSTILE)
FACTS: tuple[Fact[Any], ...] = (
    Says(("true",)),
    Watched(("true",)),
    FileState("/etc/hosts"),
    FileText("/etc/hosts"),
    Listing("/etc"),
    Sysctl("net.ipv4.ip_forward"),
    Package("kubelet"),
    Installed(),
    UnitState("kubelet.service"),
    CertificateIn("/etc/kubernetes/pki/apiserver.crt"),
    CertificateAt("10.0.0.1", 6443),
    StaticPodsRunning(),
    StaticPodFlags("kube-apiserver"),
    StaticPodImages("/etc/kubernetes/manifests"),
    ProgramVersion("kubelet"),
    SecretsStored(),
    KeysThere(),
    BackupsThere("true"),
    FilePart("/etc/hosts", 0),
    BootIs(),
    SignedBy("PEM", "/etc/kubernetes/admin.conf"),
    Accepts("PEM", "10.0.0.1", 6443),
)
PARSERS: dict[str, Callable[[str], object]] = {
    "os-release": os_release,
    "apt-cache madison": offers,
    "openssl's date": expires,
    "apt-get -s upgrade": lambda text: find_pending(text, {}, "security", kernel=True),
    "logind's inhibitors": find_inhibitors,
    "installed kernels": find_kernels,
    "nvidia-smi -L": NVIDIA.uuids,
    "nvidia-smi nvlink -e": read_link_errors,
    "ports of InfiniBand": lambda text: judge_ports({"te1": HostPorts(read_ports(text)[0], ("mlx5_0/1",))}),
    "an API's status": status_of,
    "an API's refusal": lambda text: refusal("GET /x", 500, text),
    "redact": redact,
    "tail": tail,
}


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
@given(data=st.data())
@QUICK
def test_a_fact_is_a_value_or_an_error_of_ours_whatever_a_host_answers(fact: Fact[Any], data: st.DataObject) -> None:
    plan = Plan([fact])
    outputs = data.draw(st.lists(OUTPUTS, min_size=len(plan.commands), max_size=len(plan.commands)))
    with contextlib.suppress(ShipwayError):
        assert fact in plan.answers(outputs)


@pytest.mark.parametrize("parser", PARSERS)
@given(text=HOSTILE)
@QUICK
def test_a_parser_never_crashes(parser: str, text: str) -> None:
    PARSERS[parser](text)


@given(HOSTILE, HOSTILE)
@QUICK
def test_gpus_and_versions_are_compared_whatever_they_are(one: str, other: str) -> None:
    found = addresses_of(one, other)
    assert list(found) == sorted(set(found))
    assert version_matches(one, other) in (True, False)


@given(HOSTILE, HOSTILE)
@QUICK
def test_an_answer_that_is_cut_or_forged_is_outputs_or_a_value_error(out: str, err: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(isinstance(one, Output) for one in split("--shipway-x", f"{out}\n--shipway-x {err}", err))


@given(HOSTILE)
@QUICK
def test_containerds_dump_is_compared_or_unreadable(text: str) -> None:
    for nvidia in (False, True):
        wanted = Wanted("registry.example/pause:3.9", NVIDIA.runtime if nvidia else None, nvidia)
        with contextlib.suppress(UnreadableError):
            containerd_config.differences(text, wanted)


@given(HOSTILE)
@QUICK
def test_a_kubeconfig_or_a_certificate_is_read_or_refused_without_its_content(text: str) -> None:
    with pytest.raises(ShipwayError) as refused:
        parse_admin_conf(text, host="te1")
    assert len(text) < 40 or text not in str(refused.value)
    with pytest.raises(ValueError):  # noqa: PT011 - the reason differs from text to text
        ca_hash(text)


@given(HOSTILE)
@QUICK
def test_any_cluster_file_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        parse_cluster(text)


NASTY = [
    "$(touch /tmp/owned)",
    "`id`",
    "; id",
    "a b",
    "a\nb",
    "'",
    '"',
    "${IFS}",
    "|| id",
    "&",
    "../../etc",
    "-rf",
    "*",
    "\\",
]


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize(
    "text",
    [
        "name: {x}\nhosts: [10.0.0.1]",
        "name: a\nhosts: [{{name: {x}, address: 10.0.0.1}}]",
        "name: a\nhosts: [{{name: b, address: {x}}}]",
        "name: a\nhosts: [10.0.0.1]\nssh: {{user: {x}}}",
        "name: a\nhosts: [10.0.0.1]\nkubernetes: {{version: {x}}}",
        "name: a\nhosts: [10.0.0.1]\nkubernetes: {{api_endpoint: {x}}}",
        "name: a\nhosts: [10.0.0.1]\nruntime: {{package: {x}}}",
        "name: a\nhosts: [10.0.0.1]\nsystem: {{packages: [{x}]}}",
        "name: a\nhosts: [10.0.0.1]\ngpu: {{verify_image: {x}}}",
        "name: a\nhosts: [{{name: b, address: 10.0.0.1, labels: {{k: {x}}}}}]",
    ],
)
def test_no_field_that_reaches_a_command_takes_words_of_a_shell(text: str, nasty: str) -> None:
    quoted = "'" + nasty.replace("'", "''") + "'"
    with pytest.raises(Refused):
        parse_cluster(text.format(x=quoted))


WORDS = st.lists(
    st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), max_size=40), max_size=6
)


@given(words=WORDS)
@settings(max_examples=40)
def test_words_stay_words_in_a_real_shell(words: list[str]) -> None:
    text, boundary = compose([("printf", "%s\\0", *words)], verb="r")
    ran = subprocess.run(["sh", "-c", text], capture_output=True, check=False)
    outputs = split(boundary, ran.stdout.decode(errors="surrogateescape"), ran.stderr.decode(errors="replace"))
    said = outputs[0].stdout.encode(errors="surrogateescape")
    assert said == b"".join(word.encode() + b"\0" for word in (words or [""]))
