"""The order of a hardening: everything is looked at, files are everywhere first, and one that fails ends it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flows import harden as flow
from flows.cli.harden import COMMAND
from shipway.errors import Permanent, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.kubeadm.hardening import PARTS
from shipway.kubeadm.writes import MANIFESTS
from shipway.stage import StageName
from shipway.step import Drift, Impact, StepResult
from shipway.steps.hardening.manifest import new_manifest, wanted_of
from shipway.steps.hardening.record import HardeningDeclared, HardeningRecorded
from shipway.steps.kubernetes.health import KubeletConfigured, KubeletLoaded
from tasks.context import HIGHEST, Run
from tasks.harden import stages
from tests.hardening.test_declared import ALL, hardened
from tests.hardening.test_static_pods import POD
from tests.places.facts import KnownFacts, said
from tests.places.kube import cluster_of


class Order:
    """Which stages a flow asked for, and which of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failing: tuple[str, str], **changes: Any) -> None:
        hosts = [
            {"name": name, "address": f"10.9.0.{at}", "gpus": 1} for at, name in enumerate(("cp1", "cp2", "w1"), 1)
        ]
        for host in hosts:
            host["roles"] = ("worker",) if host["name"] == "w1" else ("control_plane",)
        cluster = cluster_of(("te1",), hardening={**ALL, **changes})
        made = cluster_of(("x",)).hosts[0]
        specs = tuple(made.model_copy(update=host) for host in hosts)
        self.run = Run(cluster.model_copy(update={"hosts": specs}), "harden")
        self.asked: list[str] = []
        self.failing = failing
        self.run.seen.surveys = {host.name: SimpleNamespace(joined=True) for host in specs}  # type: ignore[misc]
        self.leased = False
        monkeypatch.setattr(flow, "on", self.on)
        monkeypatch.setattr(flow, "lease", self.lease)
        monkeypatch.setattr(flow, "disagreement", self.agree)

    async def on(self, stage: StageName, host: str, *before: Any) -> object | None:
        """Keep what was asked for; nothing is built on what failed."""
        if before and before[0] is None:
            return None
        self.asked.append(f"{stage.value} {host}")
        return None if (stage.value, host) in self.failing else object()

    async def lease(self, _: Run) -> None:
        """Take the lock."""
        self.leased = True

    async def agree(self, _: Run) -> list[Any]:
        """The hosts are those of the file."""
        return []


async def test_files_are_on_every_control_plane_before_the_first_one_is_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = Order(monkeypatch)
    assert await flow.may_begin(order.run)
    looks = [line for line in order.asked if line.startswith(("preflight", "may"))]
    assert looks == ["preflight cp1", "preflight cp2", "preflight w1", "may_harden cp1", "may_harden cp2"]
    order.asked.clear()
    await flow.close(order.run)
    assert order.asked == [
        *("harden_files cp1", "harden_files cp2"),
        *("harden_control_plane cp1", "harden_control_plane cp2"),
        *("harden_record cluster", "seal_secrets cp1"),
        *("harden_host cp1", "harden_host cp2", "harden_host w1"),
    ]


async def test_one_that_does_not_serve_ends_it_and_the_record_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(monkeypatch, ("harden_control_plane", "cp1"))
    await flow.close(order.run)
    assert order.asked == ["harden_files cp1", "harden_files cp2", "harden_control_plane cp1"]
    order = Order(monkeypatch, ("harden_files", "cp2"))
    await flow.close(order.run)
    assert order.asked == ["harden_files cp1", "harden_files cp2"]
    order = Order(monkeypatch, ("harden_host", "cp1"), encryption_at_rest=False)
    await flow.close(order.run)
    assert order.asked[-2:] == ["harden_record cluster", "harden_host cp1"]


async def test_what_is_refused_is_refused_for_all_at_once_and_no_lock_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(monkeypatch, ("may_harden", "cp1"), ("may_harden", "cp2"))
    assert not await flow.may_begin(order.run)
    assert order.asked[-2:] == ["may_harden cp1", "may_harden cp2"]
    assert not order.leased
    assert order.run.admitted == set()


async def test_a_control_plane_that_is_bare_is_a_bootstraps(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(monkeypatch)
    order.run.seen.surveys["cp2"] = SimpleNamespace(joined=False)  # type: ignore[assignment]
    assert not await flow.may_begin(order.run)
    assert [error.code for result in order.run.results for error in result.errors] == ["SHW-813"]
    assert not order.leased


def test_the_command_takes_its_options() -> None:
    asked = COMMAND.parser().parse_args(["f.yaml", "--plan", "--report", "r.json", "--quiet"])
    assert (asked.plan, asked.quiet, COMMAND.mode(asked)) == (True, True, "plan")
    assert COMMAND.mode(COMMAND.parser().parse_args(["f.yaml"])) == "harden"
    assert HIGHEST["harden"] is Impact.SERVICE  # no step of it may disturb workloads


async def test_a_bootstrap_of_a_running_cluster_names_the_verb_and_changes_nothing() -> None:
    cluster = hardened()
    facts = {FileText(f"{MANIFESTS}/{part}.yaml"): POD for part in PARTS}
    with pytest.raises(Permanent) as caught:
        await HardeningDeclared(cluster).check(KnownFacts(facts))  # type: ignore[arg-type] - a double of a host
    assert caught.value.code == "SHW-811"
    assert "shipway harden" in caught.value.fix
    for part in PARTS:
        facts[FileText(f"{MANIFESTS}/{part}.yaml")] = new_manifest(part, POD, wanted_of(cluster, part))
    assert await HardeningDeclared(cluster).check(KnownFacts(facts)) is None  # type: ignore[arg-type]


async def test_pods_that_pod_security_would_refuse_are_named_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(hardened(), "plan")
    words = 'Warning: existing pods in namespace "web" violate the new PodSecurity enforce level "baseline:latest"\n'
    more = "Warning: agent (and 2 other pods): hostPath volumes\nnamespace/web labeled (server dry run)\n"
    look = Says((*stages.VIOLATIONS, "pod-security.kubernetes.io/enforce=baseline"), seconds=70)
    output = said("")
    host = KnownFacts({look: type(output)(0, "", words + more)})
    await stages._foresee(run, host)  # type: ignore[arg-type] - a double of a host
    assert run.warned == [
        'PodSecurity: existing pods in namespace "web" violate the new PodSecurity enforce level "baseline:latest"',
        "PodSecurity: agent (and 2 other pods): hostPath volumes",
    ]
    monkeypatch.setattr(run, "warned", [])
    plain = Run(hardened(pod_security={}), "plan")
    await stages._foresee(plain, host)  # type: ignore[arg-type]
    assert plain.warned == []


class Api:
    """An API that has kubeadm's record."""

    name = "cluster"

    def __init__(self, text: str) -> None:
        self.text = text

    async def get(self, *_: str) -> dict[str, Any]:
        """Return it."""
        return {"metadata": {"resourceVersion": "7"}, "data": {"ClusterConfiguration": self.text}}

    async def patch(self, _version: str, _kind: str, _name: str, changes: Any, _namespace: str) -> None:
        """Keep it, where it is still the one that was read."""
        assert changes["metadata"]["resourceVersion"] == "7"
        self.text = changes["data"]["ClusterConfiguration"]

    def forget(self) -> None:
        """Look anew."""


async def test_kubeadms_record_is_edited_by_its_lines_and_once() -> None:
    text = (
        "apiVersion: kubeadm.k8s.io/v1beta2  # of 1.20\napiServer:\n  timeoutForControlPlane: 4m0s\nclusterName: te\n"
    )
    api, step = Api(text), HardeningRecorded(hardened())
    assert await step.check(api) is not None  # type: ignore[arg-type] - a double of an API
    await step.apply(api)  # type: ignore[arg-type]
    assert await step.check(api) is None  # type: ignore[arg-type]
    assert api.text.startswith("apiVersion: kubeadm.k8s.io/v1beta2  # of 1.20\n")
    off = HardeningRecorded(cluster_of(("te1", "te2")))
    await off.apply(api)  # type: ignore[arg-type]
    assert await off.check(api) is None  # type: ignore[arg-type]
    assert "audit" not in api.text


def test_a_plan_names_the_restart_of_a_kubelet_whose_configuration_would_change() -> None:
    configured, loaded = KubeletConfigured({}).name, KubeletLoaded().name
    as_wanted = [StepResult(configured, "ok"), StepResult(loaded, "ok", Impact.SERVICE)]
    assert stages.foresee_restart(as_wanted) == as_wanted
    drifted = [StepResult(configured, "drifted", drift=Drift("a", "b")), as_wanted[1]]
    assert [result.outcome for result in stages.foresee_restart(drifted)] == ["drifted", "drifted"]


async def test_refusals_are_results_of_the_look_and_other_drift_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    run, host = Run(hardened(), "plan"), KnownFacts({})
    host.forget = lambda: None  # type: ignore[attr-defined]
    text = POD.replace("--oidc-issuer-url=https://id.example.com", "--audit-policy-file=/site.yaml")
    host.facts[FileText(f"{MANIFESTS}/kube-apiserver.yaml")] = text
    monkeypatch.setattr(run, "session", lambda _: host)
    results = await stages.may_harden(run, "may_harden", "te1")
    assert [result.error.code for result in results if isinstance(result.error, Refused)] == ["SHW-800"]
