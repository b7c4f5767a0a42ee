"""The order of a run about certificates: looked at, refused as a whole, one control plane at a time, then kubelets."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from flows import certificates as flow
from flows.cli.certificates import COMMAND, show_table
from shipway.cluster_file import parse_cluster
from shipway.converge import converge
from shipway.errors import Permanent, Refused
from shipway.facts.certificates import CertificateAt, CertificateIn, CertificateInfo
from shipway.facts.files import FileText
from shipway.kubeadm.certificates import KUBELET_CLIENT, KUBELET_SELF_SIGNED, authority_path
from shipway.stage import StageName
from shipway.step import Impact
from shipway.steps.kubernetes.health import KUBELET_CONFIG
from shipway.steps.kubernetes.renewal import CertificatesRenewed
from tasks.certificates.report import certificates_report
from tasks.certificates.rows import look_at_certificates
from tasks.certificates.stages import kubelet_steps, permit_alone, renew_files, renewal_steps
from tasks.context import Run
from tasks.passes.certificates import CertificateRow
from tasks.stage_result import StageResult, StepRow, report_redacted
from tests.places.control_plane import ADDRESS, ControlPlane
from tests.places.kube import cluster_of

FILE = "name: te\nprofile: seed\nhosts:\n- {name: cp, address: 192.0.2.1}\n- {name: w1, address: 192.0.2.2}\n"


class Seen:
    """A host that has joined."""

    joined = True


class Order:
    """Which stages a flow asked for, and how they end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **failing: str) -> None:
        self.run = Run(parse_cluster(FILE), "bootstrap")
        self.asked: list[tuple[str, str]] = []
        self.failing = failing
        self.run.seen.surveys = {"cp": Seen(), "w1": Seen()}  # type: ignore[dict-item]
        monkeypatch.setattr(flow, "on", self.on)

    async def on(self, stage: StageName, host: str, *_: Any) -> object | None:
        """Keep what was asked for."""
        self.asked.append((stage.value, host))
        return None if self.failing.get(host) == stage else object()


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Order]:
    return lambda **failing: Order(monkeypatch, **failing)


def test_kubelets_come_after_the_control_planes_and_only_where_something_is_wrong(order: Callable[..., Order]) -> None:
    one = order()
    one.run.certificates.kubelets = {"w1"}
    asyncio.run(flow.renew(one.run))
    assert one.asked == [("renew_certificates", "cp"), ("kubelet_certificates", "w1")]


def test_a_control_plane_that_does_not_serve_ends_the_run(order: Callable[..., Order]) -> None:
    one = order(cp="renew_certificates")
    one.run.certificates.kubelets = {"w1"}
    asyncio.run(flow.renew(one.run))
    assert one.asked == [("renew_certificates", "cp")]


def of_etcd(host: str, days: float, **more: Any) -> CertificateRow:
    return replace(CertificateRow(host, "etcd/peer", "2026-11-29T00:00:00Z", days, "0A", "kubeadm"), **more)


def several(order: Callable[..., Order], *rows: CertificateRow, **failing: str) -> Order:
    one = order(**failing)
    names = ("cp1", "cp2", "cp3")
    hosts = "".join(
        f"- {{name: {name}, address: 192.0.2.{n}, roles: [control_plane]}}\n" for n, name in enumerate(names, 1)
    )
    one.run = Run(
        parse_cluster(f"name: te\nprofile: seed\nhosts:\n{hosts}- {{name: w1, address: 192.0.2.9}}\n"), "bootstrap"
    )
    one.run.seen.surveys = {name: Seen() for name in names}  # type: ignore[misc]
    one.run.certificates.rows = {row.host: (row,) for row in rows}
    return one


def test_the_files_of_etcds_that_cannot_talk_to_each_other_are_renewed_on_all_before_one_is_started_anew(
    order: Callable[..., Order],
) -> None:
    renewals = [("renew_certificates", f"cp{number}") for number in (1, 2, 3)]
    expired = several(order, of_etcd("cp1", 10.0), of_etcd("cp2", -1.0))
    asyncio.run(flow.renew(expired.run))
    assert expired.asked == [*(("renew_files", f"cp{number}") for number in (1, 2, 3)), *renewals]
    for last in (
        of_etcd("cp1", 3.0),
        of_etcd("cp1", -1.0, name="apiserver"),
        of_etcd("cp1", -1.0, renewed_by="nobody"),
    ):
        lasting = several(order, last)
        asyncio.run(flow.renew(lasting.run))
        assert lasting.asked == renewals
    stopped = several(order, of_etcd("cp2", -1.0), cp2="renew_files")
    asyncio.run(flow.renew(stopped.run))
    assert stopped.asked == [("renew_files", "cp1"), ("renew_files", "cp2")]
    alone = order()
    alone.run.certificates.rows = {"cp": (of_etcd("cp", -1.0),)}
    asyncio.run(flow.renew(alone.run))
    assert alone.asked == [("renew_certificates", "cp")]


async def test_files_are_renewed_and_nothing_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    run, host = Run(cluster_of(("te1", "te2")), "bootstrap"), ControlPlane(-2)
    host.name = "te1"
    monkeypatch.setattr(run, "session", lambda _: host)
    results = await renew_files(run, "renew_files", "te1")
    assert [result.outcome for result in results] == ["ok", "ok", "changed"]
    assert [line.split(":")[0] for line in host.done] == ["kubeadm-certs"]


def test_a_host_that_was_not_reached_or_never_joined_is_left_alone(order: Callable[..., Order]) -> None:
    one = order()
    del one.run.seen.surveys["cp"]
    one.run.certificates.kubelets = {"cp"}
    asyncio.run(flow.renew(one.run))
    assert one.asked == []


async def test_all_refusals_are_named_at_once_and_no_lock_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def locked(_: Run) -> None:
        pytest.fail("a lock was taken for what is refused")

    monkeypatch.setattr(flow, "lease", locked)
    run = Run(parse_cluster(FILE), "bootstrap")
    key = Refused("no key", host="cp", code="SHW-741", fix="Sign elsewhere.")
    clock = Refused("a wrong clock", host="cp", code="SHW-747", fix="Set it.")
    run.certificates.refusals = {"cp": [key, clock]}
    with pytest.raises(Refused, match=r"nothing was changed: cp: no key; cp: a wrong clock") as caught:
        await flow.take(run)
    assert (caught.value.code, caught.value.fix) == ("SHW-741", "Sign elsewhere. Set it.")


async def test_without_a_lock_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unlocked(_: Run) -> Permanent:
        return Permanent("no lock can be had", code="SHW-302")

    monkeypatch.setattr(flow, "lease", unlocked)
    with pytest.raises(Refused, match="no lock can be had"):
        await flow.take(Run(parse_cluster(FILE), "bootstrap"))


ROW = CertificateRow("cp", "apiserver", "2026-12-09T00:00:00Z", 10.0, "0A", "kubeadm", "6443: 0B")
ERROR = report_redacted(Permanent("broken", host="w1", code="SHW-750"))


def judged(mode: str, *results: StageResult) -> str:
    run = Run(parse_cluster(FILE), mode)  # type: ignore[arg-type]
    run.results = list(results)
    return certificates_report(run).outcome


def stage(host: str, outcome: Any = "ok", name: str = "certificates", **more: Any) -> StageResult:
    return StageResult(host, name, outcome, (StepRow("it is so", outcome),), **more)


def test_a_run_is_judged_by_what_is_left() -> None:
    looked = (stage("cp", "drifted"), stage("w1"))
    assert judged("plan", *looked) == "planned"
    assert judged("bootstrap", *looked, stage("cp", "changed", "renew_certificates")) == "ok"
    assert judged("bootstrap", *looked, stage("cp", "drifted", "renew_certificates")) == "drifted"
    assert judged("bootstrap", *looked, stage("w1", "failed", errors=(ERROR,))) == "partial"
    assert judged("bootstrap", *looked, stage("cp", "failed", errors=(replace(ERROR, host="cp"),))) == "failed"
    assert judged("plan", stage("cp")) == "partial"  # w1 was not reached
    assert judged("plan") == "failed"


def test_the_state_says_how_long_there_is_left() -> None:
    run = Run(parse_cluster(FILE), "plan")
    run.results = [stage("cp"), stage("w1")]
    run.certificates.rows = {"cp": (ROW, replace(ROW, days=3.2))}
    run.report = certificates_report(run)
    state = flow.end(run)
    assert (state.type, state.message) == (
        "COMPLETED",
        "planned: 2 certificates on 2 hosts, the first to end in 3 days; 0 steps changed",
    )
    run.results.append(stage("w1", "failed", errors=(ERROR,)))
    run.report = certificates_report(run)
    state = flow.end(run)
    assert (state.type, state.name) == ("FAILED", "Partial")
    assert "broken [SHW-750]" in str(state.message)


def test_the_report_warns_of_what_this_command_does_not_mend() -> None:
    run = Run(parse_cluster(FILE), "plan")
    late = replace(ROW, name="ca", renewed_by="nobody", finding="ends before what it signs")
    run.certificates.rows = {"cp": (replace(ROW, finding="renewed, not loaded"), late)}
    run.certificates.left = ("csr-7 of system:node:w9 is left: there is no node w9",)
    report = certificates_report(run)
    assert [line for line in report.warnings if "cp: ca" in line] == [
        "cp: ca (ends 2026-12-09T00:00:00Z): " + late.finding
    ]
    assert report.warnings[-1] == run.certificates.left[0]
    assert not any("apiserver" in line for line in report.warnings)
    assert '"finding": "renewed, not loaded"' in report.as_json()


def test_the_table_shows_each_certificate_and_of_many_those_that_are_to_be_seen() -> None:
    run = Run(parse_cluster(FILE), "plan")
    run.certificates.rows = {"cp": (ROW,), "w1": (replace(ROW, host="w1", finding="has expired", ends="", days=0.0),)}
    report = certificates_report(run)
    said = io.StringIO()
    show_table(Console(file=said, width=160), report)
    assert "apiserver" in said.getvalue()
    assert "6443: 0B" in said.getvalue()
    many = replace(report, certificates=(*report.certificates, *(replace(ROW, name=f"n{n}") for n in range(90))))
    said = io.StringIO()
    show_table(Console(file=said, width=160), many)
    assert "91 more certificates have nothing to be said of" in said.getvalue()
    assert "has expired" in said.getvalue()


def test_the_command_takes_its_options_and_refuses_a_number_that_cannot_be_meant() -> None:
    asked = COMMAND.parser().parse_args(["f.yaml", "--plan", "--within", "30", "--all", "--host", "cp", "--quiet"])
    assert (asked.plan, asked.within, asked.everything, asked.host) == (True, 30, True, ["cp"])
    assert COMMAND.parser().parse_args(["f.yaml"]).within == 90
    for within in (0, -3, 99999):
        with pytest.raises(Refused, match="SHW-740"):
            flow.check_days(within)


async def test_a_run_that_lost_the_cluster_changes_nothing_more() -> None:
    run, host = Run(parse_cluster(FILE), "bootstrap"), ControlPlane(5)
    run.locks.lost = Refused("another run took it", code="SHW-102")
    with pytest.raises(Refused, match="no longer holds the cluster"):
        await converge([CertificatesRenewed(before={})], host, Impact.SERVICE, permit=permit_alone(run))
    assert not host.done


async def test_a_control_planes_steps_come_in_the_order_in_which_each_needs_the_one_before() -> None:
    run = Run(parse_cluster(FILE), "bootstrap")
    names = [step.name for step in renewal_steps(run, "cp")]
    assert names == [
        "the control plane's manifests are in their place",
        "the clock is right enough to sign certificates",
        "certificates are valid for 90 days",
        "etcd keeps its quorum while its member here is started anew",
        "etcd uses its current certificates",
        "kube-apiserver uses its current certificates",
        "kube-controller-manager uses its current certificates",
        "kube-scheduler uses its current certificates",
        "root has the admin kubeconfig",
    ]
    kubelets = [step.name for step in kubelet_steps(run, "w1")]
    assert kubelets.index("the kubelet's client certificate is valid") < kubelets.index(
        "kubelet.conf names the certificate that the kubelet renews"
    )


def row_of(rows: tuple[CertificateRow, ...], name: str) -> CertificateRow:
    (found,) = [row for row in rows if row.name == name]
    return found


async def test_the_rows_say_what_is_served_what_ends_and_who_renews_it() -> None:
    run, host = Run(cluster_of(("te1", "te2")), "plan"), ControlPlane(300, apiserver=-2)
    host.set("etcd/server", serial="0123456789ABCDEF")
    soon = time.time() + 9 * 86400
    host.facts[CertificateIn(KUBELET_CLIENT)] = CertificateInfo("C1", time.time() - 86400)
    host.facts[CertificateIn(KUBELET_SELF_SIGNED)] = CertificateInfo("02", soon)
    host.facts[CertificateAt(ADDRESS, 10250)] = CertificateInfo("02", soon)
    rows = await look_at_certificates(run, host)  # type: ignore[arg-type] - a double of a host
    etcd = row_of(rows, "etcd/server")
    assert (etcd.served, etcd.finding) == (
        "2379: A4",
        "2379 serves serial A4, the file has …89ABCDEF: renewed, not loaded",
    )
    assert (row_of(rows, "apiserver").finding, row_of(rows, "apiserver").days) == ("has expired", -2.0)
    assert (row_of(rows, "etcd/peer").finding, row_of(rows, "admin.conf").finding) == ("", "")
    assert row_of(rows, "ca").renewed_by == "nobody"
    assert "cut off from the cluster" in row_of(rows, "kubelet client").finding
    serving = row_of(rows, "kubelet serving")
    assert (serving.served, serving.renewed_by) == ("10250: 02", "nobody")
    assert "signed by itself" in serving.finding
    host.facts[FileText(KUBELET_CONFIG)] = "kind: KubeletConfiguration\ntlsCertFile: /etc/own.crt\n"
    given = await look_at_certificates(run, host)  # type: ignore[arg-type]
    assert not [row for row in given if row.name == "kubelet serving"]


async def test_a_ca_that_ends_within_a_year_is_named_and_a_workers_row_is_its_kubelets_alone() -> None:
    run, host = Run(cluster_of(("te1", "te2")), "plan"), ControlPlane(300)
    host.facts[CertificateIn(authority_path("etcd/ca"))] = CertificateInfo("CA", time.time() + 100 * 86400)
    assert "shipway rotate-ca" in row_of(await look_at_certificates(run, host), "etcd/ca").finding  # type: ignore[arg-type]
    host.name = "te2"
    assert await look_at_certificates(run, host) == ()  # type: ignore[arg-type]
