"""One cause is said once, with the hosts that it befell; what differs between causes is never lost by that."""

from __future__ import annotations

import errno
import json
import os
import socket
from io import StringIO

import pytest
from rich.console import Console

from flows.cli.summary import say, tell_errors
from shipway.cluster_file import parse_cluster
from shipway.errors import ErrorReport, HostKeyUnknown, Unreachable
from shipway.foreign.errors import describe_error
from tasks.artifacts import flat, markdown
from tasks.causes import group_errors, list_hosts, shorten
from tasks.context import Run
from tasks.findings import Finding, commands_of, group_findings
from tasks.judging import report_of
from tasks.ownership import refusal
from tasks.stage_result import StageResult, causes, report_redacted

BOTH = "Connection refused, Network is unreachable"
FAILED = "Connect call failed ('::1', 22, 0, 0)"
COUNT = 300
NAMES = [f"gpu{number:03}" for number in range(1, COUNT + 1)]
FILE = "name: big\nprofile: seed\nkubernetes: {pod_network: 10.0.0.0/14}\nhosts:\n" + "".join(
    f"- {{name: {name}, address: 192.0.{1 + at // 200}.{1 + at % 200}}}\n" for at, name in enumerate(NAMES)
)


def error(host: str, cause: str, fix: str = "Check it.", code: str = "SHW-201") -> ErrorReport:
    """Return an error of the step "SSH"."""
    return ErrorReport(host, "SSH", code, cause, fix, retryable=True)


def lost(at: int) -> ErrorReport:
    """Return the error of a host that cannot be reached: its address is in the message."""
    where = f"root@192.0.{1 + at // 200}.{1 + at % 200}:22"
    return report_redacted(Unreachable(f"{where}: no SSH connection (Connection refused)", host=NAMES[at], step="SSH"))


def printed(run: Run) -> str:
    """Return what the end of a run says."""
    out = StringIO()
    say(Console(file=out, width=160), report_of(run), run)
    return out.getvalue()


def test_three_hundred_hosts_that_cannot_be_reached_are_a_few_lines_everywhere_and_whole_in_the_report_file() -> None:
    run = Run(parse_cluster(FILE), "plan")
    for at, name in enumerate(NAMES):
        run.results.append(StageResult(name, "preflight", "failed", errors=(lost(at),)))
        for stage in ("prepare_system", "container_runtime", "join_worker"):
            run.skip(name, stage)
    report = report_of(run)
    said = printed(run)
    line = "gpu[001-300] (300 hosts): SSH: no SSH connection (Connection refused) [SHW-201] Next: Check that the host"
    assert said.count("Connection refused") == 1
    assert line in said
    assert "not tried after that: 900 steps of prepare_system, container_runtime, join_worker" in said
    assert len(said.splitlines()) < 20
    page = markdown(report)
    assert page.count("Connection refused") == 1
    assert page.count("not tried") == 1
    assert len(page.splitlines()) < 25
    assert "gpu[001-300] (300 hosts)" in causes(report.errors)
    assert len(json.loads(report.as_json())["errors"]) == COUNT
    assert "root@192.0.2.7:22" in report.as_json()


def test_a_single_host_keeps_its_address() -> None:
    (one,) = group_errors([lost(0)])
    assert one.said == "gpu001: SSH: root@192.0.1.1:22: no SSH connection (Connection refused) [SHW-201]"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("no SSH within 30 s", "no SSH within 45 s", "no SSH within 30 to 45 s"),
        ("node te1 is not Ready", "node te2 is not Ready", "node HOST is not Ready"),
        ("te1.example.org: not resolved", "te2.example.org: not resolved", "HOST: not resolved"),
        ("root@[2001:db8::1]:22: gone", "root@[2001:db8::2]:22: gone", "gone"),
        ("10.0.0.1 is on no interface", "10.0.0.2 is on no interface", "ADDRESS is on no interface"),
        ("2.5 GiB free, 1.36.2 wanted", "0.5 GiB free, 1.36.2 wanted", "0.5 to 2.5 GiB free, 1.36.2 wanted"),
    ],
)
def test_messages_that_differ_in_what_belongs_to_the_host_are_one_cause(first: str, second: str, said: str) -> None:
    (one,) = group_errors([error("te1", first), error("te2", second)])
    assert (one.who, one.cause) == ("te1, te2", said)


def test_gpus_are_named_and_not_melted_into_one() -> None:
    """Two H200 were told of as `GPU-its own in ADDRESS.0, serial 1653824016896 to 1653824025409`."""
    gpus = [
        f"GPU-85e81234-8561-c922-d645-f3129ade841{at} in 0000:00:0{at}.0, serial 165382401689{at}" for at in range(6)
    ]
    (one,) = group_errors([error("te1", f"NVIDIA H200 {gpu}: to gpu {at}.5 GB/s") for at, gpu in enumerate(gpus)])
    assert (one.who, one.cause) == ("te1", f"NVIDIA H200 {'; '.join(gpus[:4])} and 2 more: to gpu 0.5 to 5.5 GB/s")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("exit status 1", "exit status 127"),
        ("the API answered 403", "the API answered 500"),
        ("kubelet 1.36.2 is there", "kubelet 1.35.0 is there"),
        ("Connection refused", "No route to host"),
        ("package nvidia-driver-550 is missing", "package nvidia-driver-570 is missing"),
    ],
)
def test_messages_that_differ_in_their_cause_stay_apart(first: str, second: str) -> None:
    assert [one.cause for one in group_errors([error("te1", first), error("te2", second)])] == [first, second]


def test_errors_of_other_codes_or_with_other_advice_stay_apart() -> None:
    assert len(group_errors([error("te1", "x"), error("te2", "x", code="SHW-202")])) == 2
    assert len(group_errors([error("te1", "x"), error("te2", "x", "Do something else.")])) == 2


def test_advice_that_names_its_host_is_reported_for_the_first_and_stays_a_command_that_can_be_typed() -> None:
    one, *rest = group_errors(
        error(f"te{at}", f"root@10.0.0.{at}:22: gone", f"Type `ssh -p {2200 + at} root@10.0.0.{at}`.") for at in (1, 2)
    )
    assert not rest
    assert one.fix == "for te1, and likewise for each: Type `ssh -p 2201 root@10.0.0.1`."


def test_first_contact_with_many_hosts_lists_the_fingerprints_that_a_person_compares() -> None:
    def met(at: int) -> ErrorReport:
        where, shown = f"root@192.0.2.{at}:22", f"ssh-ed25519 SHA256:{'abcdefghij' * 4}{at:03}"
        fix = f"Compare that; either log in once (`ssh -p 22 root@192.0.2.{at}`), or set ssh.host_keys: accept-new."
        message = f"{where}: the host is in no known_hosts file (/root/.ssh/known_hosts); it shows {shown}"
        return report_redacted(HostKeyUnknown(message, host=f"gpu{at:03}", step="SSH", fix=fix))

    out = StringIO()
    tell_errors(Console(file=out, width=160), [met(at) for at in range(1, COUNT + 1)])
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("error: gpu[001-300] (300 hosts): SSH: the host is in no known_hosts file")
    assert "its own fingerprint" in lines[0]
    assert "log in once (`ssh -p 22 root@192.0.2.1`), or set ssh.host_keys: accept-new" in lines[0]
    assert lines[1].strip() == f"gpu001: SHA256:{'abcdefghij' * 4}001"
    assert lines[-1].strip() == "and 290 more: the report file has each"
    assert len(lines) == 12


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["te1"], "te1"),
        (["te1", "te2"], "te1, te2"),
        (["te3", "te1", "te2"], "te[1-3]"),
        (["te9", "te10", "te11"], "te[9-11]"),
        (["te09", "te10", "te11"], "te[09-11]"),
        (["te9", "te010", "te011"], "te9, te010, te011"),
        (["n1.a", "n2.a", "n3.a", "n1.b"], "n[1-3].a, n1.b"),
        (["alpha", "beta", "alpha", ""], "alpha, beta"),
        ([f"n{at}" for at in range(1, 13)], "n[1-12] (12 hosts)"),
        (
            [f"n{at}" for at in range(1, 60, 2)],
            "n1, n3, n5, n7, n9, n11, n13, n15, n17, n19 and more (30 hosts)",
        ),
    ],
)
def test_hosts_are_listed_compactly(names: list[str], said: str) -> None:
    assert list_hosts(names) == said


def test_a_refusal_names_each_cause_once() -> None:
    said = str(refusal([error(name, f"{name} belongs to another cluster") for name in NAMES]))
    assert said.count("belongs to another cluster") == 1
    assert "gpu[001-300]" in said


def test_a_finding_on_many_hosts_is_one_with_one_command() -> None:
    found = [
        Finding(name, "system", "swap is off", "on", "off", "SERVICE", "held back", f"pods run on {name}", f"x {name}")
        for name in NAMES
    ]
    (one,) = group_findings(found)
    assert one.who == "gpu[001-300] (300 hosts)"
    assert commands_of(found) == ["x gpu001   (likewise for gpu[002-300] (299 hosts))"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 22)"), "Connection refused"),
        (OSError(f"Multiple exceptions: [Errno 111] {FAILED}, [Errno 101] {FAILED}"), BOTH),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/etc/x"), "No such file or directory: /etc/x"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (ConnectionResetError(), "connection reset error"),
        (ValueError("bad  port"), "bad port"),
        (LookupError(None), "lookup error"),
    ],
)
def test_a_foreign_exception_is_reported_in_words(fault: Exception, said: str) -> None:
    assert describe_error(fault) == said


def test_a_text_is_cut_between_words_or_reported_whole() -> None:
    assert shorten("one two three", 13) == "one two three"
    assert shorten("one two three", 12) == "one two ..."
    assert shorten("x" * 20, 10) == "xxxxxx ..."


def test_a_word_that_is_longer_than_a_phone_is_wide_may_break_and_nothing_else_changes() -> None:
    word = "CustomResourceDefinition/installations.operator.tigera.io"
    broken = "CustomResourceDefinition/<wbr>installations.<wbr>operator.<wbr>tigera.<wbr>io"
    assert flat(f"was {word}; `get {word} x_y`") == f"was {broken}; <code>get {broken} x\\_y</code>"
    assert flat("`a lone backtick") == "\\`a lone backtick"


def test_commands_stay_commands_in_markdown() -> None:
    assert flat("a <b> | *c* `kubectl get <x> | grep a_b`") == "a &lt;b> \\| \\*c\\* `kubectl get <x> | grep a_b`"
