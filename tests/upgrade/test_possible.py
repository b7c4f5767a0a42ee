"""Everything that forbids an upgrade, each with its code and the name of what is in the way."""

from __future__ import annotations

import json
import time
from typing import Any, cast

import pytest

from shipway.converge import look_at_all
from shipway.errors import Blocked, Refused
from shipway.facts.certificates import CertificateIn, CertificateInfo
from shipway.facts.commands import Says
from shipway.facts.files import FileText, Listing
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.errors import kind_missing
from shipway.kubeadm.certificates import KUBELET_CLIENT, LEAFS
from shipway.steps.kubernetes import etcd_members
from shipway.steps.kubernetes.etcd_members import MEMBERS, health, version
from shipway.steps.kubernetes.running import KUBEADM_FLAGS
from shipway.steps.upgrade.possible import (
    PLACES,
    BudgetsAllow,
    ControlPlanesReady,
    EtcdFits,
    FlagsKnown,
    GpusThere,
    KubeletsFit,
    NewestPatchFirst,
    NobodyAsksRemoved,
    NoneLeftBehind,
    NothingExpired,
    PathAllowed,
    RecordReadable,
    RoomThere,
    pods_by_node,
    requested_gone,
)
from tests.places.facts import KnownFacts, said
from tests.retire.objects import Object, Objects, meta, node, pod

DAY = 86400.0


class Api(Objects):
    """The list of objects, with a version."""

    def __init__(self, *objects: Object, have: str = "1.20.2") -> None:
        super().__init__(*objects, version=f"v{have}")

    async def raw(self, path: str) -> tuple[int, str]:
        """Answer /version."""
        assert path == "/version"
        return 200, f'{{"gitVersion": "{self._version}"}}'


async def refused(check: Any, on: Any, code: str, *words: str) -> Refused:
    with pytest.raises(Refused) as raised:
        await check.check(on)
    error = raised.value
    assert error.code == code
    assert [word for word in words if word not in error.message] == []
    assert error.fix
    return error


def with_kubelet(name: str, version: str, **more: Any) -> Object:
    made = node(name, **more)
    made["status"]["nodeInfo"] = {"kubeletVersion": f"v{version}"}
    return made


async def test_the_path_is_told_by_what_answers() -> None:
    assert await PathAllowed("1.21.0").check(cast("Kube", Api())) is None
    error = await refused(PathAllowed("1.22.0"), Api(), "SHW-780", "v1.20.2", "v1.22.0")
    assert "one of 1.21 first" in error.fix
    await refused(PathAllowed("1.19.9"), Api(), "SHW-781", "older")


async def test_a_control_plane_that_is_not_ready_forbids_it() -> None:
    api = Api(node("cp1"), node("cp2", ready=False))
    assert await ControlPlanesReady(["cp1"]).check(cast("Kube", api)) is None
    await refused(ControlPlanesReady(["cp1", "cp2"]), api, "SHW-784", "cp2: Kubelet stopped posting")
    await refused(ControlPlanesReady(["cp3"]), api, "SHW-784", "cp3: not registered")


async def test_kubelets_that_are_too_old_or_too_new_forbid_it() -> None:
    well = Api(with_kubelet("w1", "1.20.2"), with_kubelet("w2", "1.19.0"), node("w3"))
    assert await KubeletsFit("1.21.0").check(cast("Kube", well)) is None
    await refused(KubeletsFit("1.21.0"), Api(with_kubelet("w1", "1.18.9")), "SHW-785", "w1 has v1.18.9, more than 2")
    await refused(KubeletsFit("1.21.0"), Api(with_kubelet("w1", "1.22.0")), "SHW-785", "newer than the API server's")
    done = Api(with_kubelet("w1", "1.21.0"))
    assert await KubeletsFit("1.21.0").check(cast("Kube", done)) is None, "a run that was killed goes on"


def budget(allowed: int) -> Object:
    return {
        "kind": "PodDisruptionBudget",
        "metadata": meta("web", "default"),
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
        "status": {"disruptionsAllowed": allowed},
    }


async def test_a_budget_that_allows_nothing_forbids_it_only_for_pods_that_would_move() -> None:
    mine = pod("web-1", "w1", labels={"app": "web"})
    await refused(BudgetsAllow(["w1"]), Api(budget(0), mine), "SHW-786", "default/web keeps web-1 on w1")
    assert await BudgetsAllow(["w1"]).check(cast("Kube", Api(budget(1), mine))) is None
    assert await BudgetsAllow(["w2"]).check(cast("Kube", Api(budget(0), mine))) is None
    of_daemons = pod("web-1", "w1", owner="DaemonSet", labels={"app": "web"})
    assert await BudgetsAllow(["w1"]).check(cast("Kube", Api(budget(0), of_daemons))) is None
    of_nothing = {**budget(0), "spec": {}}
    assert await BudgetsAllow(["w1"]).check(cast("Kube", Api(of_nothing, mine))) is None


async def test_budgets_are_found_where_the_api_serves_only_their_first_version() -> None:
    class Early(Api):
        async def list_(self, api_version: str, kind: str, namespace: str = "", **more: Any) -> list[Object]:
            if api_version == "policy/v1":
                raise kind_missing(api_version, kind)
            return await super().list_(api_version, kind, namespace, **more)

    mine = pod("web-1", "w1", labels={"app": "web"})
    await refused(BudgetsAllow(["w1"]), Early(budget(0), mine), "SHW-786", "web-1")


def record(text: str) -> Object:
    return {
        "kind": "ConfigMap",
        "metadata": meta("kubeadm-config", "kube-system"),
        "data": {"ClusterConfiguration": text},
    }


async def test_a_record_that_the_new_kubeadm_cannot_read_forbids_it() -> None:
    gates = record("apiVersion: kubeadm.k8s.io/v1beta4\nfeatureGates: {ControlPlaneKubeletLocalMode: true, X: true}\n")
    await refused(RecordReadable("1.36.0"), Api(gates), "SHW-792", "ControlPlaneKubeletLocalMode (gone since 1.36)")
    assert await RecordReadable("1.35.0").check(cast("Kube", Api(gates))) is None
    old = record("apiVersion: kubeadm.k8s.io/v1beta3\n")
    assert await RecordReadable("1.36.0").check(cast("Kube", Api(old))) is None
    await refused(RecordReadable("1.37.0"), Api(old), "SHW-792", "v1beta3")
    with pytest.raises(Blocked):
        await RecordReadable("1.36.0").check(cast("Kube", Api()))
    for args in (
        "[{name: experimental-x, value: '1'}, {name: quota, value: '2'}]",
        "{experimental-x: '1', quota: '2'}",
    ):
        flags = record(f"apiVersion: kubeadm.k8s.io/v1beta4\netcd: {{local: {{extraArgs: {args}}}}}\n")
        await refused(RecordReadable("1.37.0"), Api(flags), "SHW-792", "gives etcd experimental-x, and")
        assert await RecordReadable("1.36.0").check(cast("Kube", Api(flags))) is None


async def test_gpus_that_are_lost_before_forbid_it_and_a_node_that_is_away_is_not_asked() -> None:
    short = node("w1")
    short["status"]["allocatable"] = {VENDOR.resource: "1"}
    api = Api(short, node("w2", ready=False))
    await refused(GpusThere({"w1": 2, "w2": 2, "w9": 2}), api, "SHW-790", "w1 has 1 of 2")
    assert await GpusThere({"w1": 1, "w2": 2}).check(cast("Kube", api)) is None


async def test_only_pods_of_users_that_a_drain_moves_are_counted() -> None:
    pods = [pod("a", "w1"), pod("b", "w1", namespace="kube-system"), pod("c", "w1", owner="DaemonSet"), pod("d", "w2")]
    assert pods_by_node(pods, {"kube-system"}) == {"w1": 1, "w2": 1}


def test_apis_that_clients_still_ask_for_are_named() -> None:
    row = 'apiserver_requested_deprecated_apis{group="%s",removed_release="%s",resource="%s",version="%s"} 1'
    text = "\n".join(
        (
            "# HELP apiserver_requested_deprecated_apis Gauge of deprecated APIs",
            row % ("policy", "1.25", "podsecuritypolicies", "v1beta1"),
            row % ("", "1.25", "things", "v1beta1"),
            row % ("batch", "1.26", "cronjobs", "v1beta1"),
            row % ("odd", "soon", "x", "v1"),
            "other 1",
        )
    )
    assert requested_gone(text, "1.25.3") == [
        "policy/v1beta1 podsecuritypolicies (gone since 1.25)",
        "v1beta1 things (gone since 1.25)",
    ]
    assert requested_gone(text, "1.24.9") == requested_gone("", "1.30.0") == []


async def test_apis_that_the_new_version_does_not_have_are_refused_but_those_that_kubernetes_asks_for_itself() -> None:
    asked = ["policy/v1beta1 podsecuritypolicies (gone since 1.25)", "batch/v1beta1 cronjobs (gone since 1.25)"]
    error = await refused(NobodyAsksRemoved("1.25.0", asked), Api(), "SHW-833", "batch/v1beta1 cronjobs")
    assert ("policy" in error.message, "despite: [removed_apis]" in error.fix) == (False, True)
    assert await NobodyAsksRemoved("1.25.0", asked[:1]).check(cast("Kube", Api())) is None


class Listing137:
    """An API with some kinds of a version, and objects of them."""

    def __init__(self, **objects: int) -> None:
        self.objects, self.asked = objects, list[str]()

    async def raw(self, path: str) -> tuple[int, str]:
        """Answer discovery and lists."""
        self.asked.append(path)
        version, _, kind = path.removeprefix("/apis/scheduling.k8s.io/v1alpha2").partition("/")
        assert not version
        if kind:
            return 200, json.dumps({"items": [{}] * self.objects[kind.removesuffix("?limit=1")]})
        rows = [{"name": name, "verbs": ["get", "list"]} for name in self.objects]
        listed = json.dumps({"resources": [*rows, {"name": "podgroups/status", "verbs": ["get"]}]})
        return (200, listed) if self.objects else (404, "404 page not found")


async def test_objects_that_the_new_version_cannot_read_forbid_it() -> None:
    left = Listing137(workloads=0, podgroups=2)
    error = await refused(NoneLeftBehind("1.37.0"), left, "SHW-832", "podgroups of scheduling.k8s.io/v1alpha2")
    assert "kubectl get podgroups -A" in error.fix
    for fine in (Listing137(podgroups=0), Listing137()):
        assert await NoneLeftBehind("1.37.0").check(cast("Kube", fine)) is None
    before = Listing137(podgroups=2)
    assert await NoneLeftBehind("1.36.9").check(cast("Kube", before)) is None
    assert before.asked == []


async def test_the_next_minor_is_reached_from_the_newest_patch_that_is_known() -> None:
    def step(have: str, wanted: str, *offered: str) -> NewestPatchFirst:
        async def offers(_: Host) -> tuple[str, ...]:
            return offered

        return NewestPatchFirst(have, wanted, offers)

    error = await refused(step("1.33.1", "1.34.0", "1.33.9-1.1"), KnownFacts({}), "SHW-834", "1.33.9")
    assert "--to 1.33.9" in error.fix
    await refused(step("1.20.2", "1.21.0"), KnownFacts({}), "SHW-834", "1.20.15")
    for fine in (
        step("1.33.9", "1.34.0", "1.33.9-1.1"),
        step("1.33.1", "1.33.5", "1.33.9-1.1"),
        step("1.33.1", "1.34.0"),
    ):
        assert await fine.check(cast("Host", KnownFacts({}))) is None


def etcd(*members: tuple[str, str, str], learner: bool = False) -> KnownFacts:
    """Return a host whose etcd has these members: name, version, health."""
    urls = [f"https://10.0.0.{number}:2379" for number, _ in enumerate(members, 1)]
    listed = [
        {"ID": str(number), "name": name, "clientURLs": [url] if name else [], "isLearner": learner}
        for number, ((name, _, _), url) in enumerate(zip(members, urls, strict=True))
    ]
    facts: dict[Any, Any] = {MEMBERS: said(json.dumps({"members": listed}))}
    for (_, runs, well), url in zip(members, urls, strict=True):
        facts[version(url)] = said(f'{{"etcdserver": "{runs}"}}' if runs else "")
        facts[health(url)] = said(f'{{"health": "{well}"}}')
    return KnownFacts(facts)


def fits(have: str, wanted: str) -> EtcdFits:
    return EtcdFits(have, wanted, seconds=0.0)


async def test_etcd_is_asked_for_the_versions_that_run() -> None:
    old = etcd(("cp1", "3.5.26", "true"), ("cp2", "3.5.24", "true"))
    error = await refused(fits("1.33.5", "1.34.0"), old, "SHW-783", "cp2 runs 3.5.24", "3.5.26")
    assert "etcd.local.imageTag to 3.5.26-0" in error.fix
    assert await fits("1.33.5", "1.33.9").check(cast("Host", old)) is None
    assert await fits("1.33.5", "1.34.0").check(cast("Host", etcd(("cp1", "3.5.26", "true")))) is None
    await refused(fits("1.36.2", "1.37.0"), etcd(("cp1", "3.6.8", "true")), "SHW-783", "3.6.11")


async def test_etcd_that_is_not_whole_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_members, "EVERY_SECONDS", 0.001)
    check = fits("1.20.2", "1.20.15")
    await refused(check, etcd(("cp1", "3.4.23", "false")), "SHW-782", "cp1 (not healthy)")
    await refused(check, etcd(("cp1", "", "true")), "SHW-782", "cp1 (healthy) (which etcd it runs is not known)")
    await refused(check, etcd(("cp1", "3.4.23", "true"), learner=True), "SHW-782", "cp1 (learner, healthy)")
    await refused(check, etcd(("", "", "")), "SHW-782", "never started")
    await refused(check, etcd(("cp1", "newest", "true")), "SHW-782", "which etcd it runs is not known")
    for words in ("", "[]", '{"members": 3}', '{"members": [3]}', "{" * 50, "[" * 100_000):
        await refused(check, KnownFacts({MEMBERS: said(words, 7)}), "SHW-782", "does not tell its members")


@pytest.mark.parametrize("at_first", ["no answer", "no leader"])
async def test_etcd_that_has_just_been_restarted_is_given_a_moment(
    at_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_members, "EVERY_SECONDS", 0.001)
    well = etcd(("cp1", "3.4.23", "true"))
    ill = {"no answer": {MEMBERS: said("", 7)}, "no leader": etcd(("cp1", "3.4.23", "false")).facts}[at_first]
    looks = 0

    class Restarting(KnownFacts):
        def forget(self) -> None:
            nonlocal looks
            looks += 1
            self.facts = dict(ill if looks < 3 else well.facts)

    assert await EtcdFits("1.20.2", "1.20.15").check(cast("Host", Restarting({}))) is None
    assert looks == 3


def df(*rows: str) -> Host:
    head = "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
    return cast("Host", KnownFacts({Says(("df", "-Pk", *PLACES)): said(head + "\n".join(rows))}))


async def test_a_full_disk_forbids_it() -> None:
    full = df("/dev/a 100 50 1000000 50% /", "/dev/b 100 50 9000000 50% /var/lib/containerd", "junk")
    await refused(RoomThere(control=False), full, "SHW-787", "/: 1.0 GiB free")
    assert await RoomThere(control=False).check(df("/dev/a 100 50 1100000 50% /")) is None
    await refused(RoomThere(control=True), df("/dev/a 100 50 1100000 50% /"), "SHW-787")


async def test_what_has_expired_forbids_it() -> None:
    ends = time.time() + 90 * DAY
    facts: dict[Any, Any] = {CertificateIn(leaf.path): CertificateInfo("A", ends) for leaf in LEAFS}
    facts[CertificateIn(KUBELET_CLIENT)] = CertificateInfo("B", time.time() - DAY)
    await refused(
        NothingExpired(control=False), KnownFacts(facts), "SHW-788", "has expired: the kubelet's client certificate"
    )
    facts[CertificateIn(KUBELET_CLIENT)] = CertificateInfo("B", ends)
    assert await NothingExpired(control=True).check(cast("Host", KnownFacts(facts))) is None
    facts[CertificateIn(LEAFS[0].path)] = CertificateInfo("A", time.time() - 1)
    await refused(NothingExpired(control=True), KnownFacts(facts), "SHW-788", LEAFS[0].name)
    assert await NothingExpired(control=False).check(cast("Host", KnownFacts(facts))) is None


async def test_a_flag_that_the_new_kubelet_does_not_know_forbids_it_wherever_a_person_put_it() -> None:
    folder = "/etc/systemd/system/kubelet.service.d"
    by_file = {FileText("/etc/default/kubelet"): "KUBELET_EXTRA_ARGS=--container-runtime=remote --v=2\n"}
    await refused(FlagsKnown("1.27.0"), KnownFacts(by_file), "SHW-791", "--container-runtime in /etc/default/kubelet")
    assert await FlagsKnown("1.26.0").check(cast("Host", KnownFacts(by_file))) is None
    by_drop_in = {
        Listing(folder): ("10-kubeadm.conf", "20-site.conf"),
        FileText(f"{folder}/20-site.conf"): '[Service]\nEnvironment="KUBELET_EXTRA_ARGS=--network-plugin=cni"\n',
    }
    await refused(FlagsKnown("1.24.0"), KnownFacts(by_drop_in), "SHW-791", "--network-plugin in", "20-site.conf")
    assert await FlagsKnown("1.37.0").check(cast("Host", KnownFacts({}))) is None
    line = 'KUBELET_KUBEADM_ARGS="--container-runtime=remote --storage-driver-db=x --node-ip=10.0.0.1"'
    kubeadms = KnownFacts({FileText(KUBEADM_FLAGS): line})
    error = await refused(FlagsKnown("1.37.0"), kubeadms, "SHW-791", f"--storage-driver-db in {KUBEADM_FLAGS}")
    assert "--container-runtime" not in error.message, "kubeadm takes that one out itself"
    assert await FlagsKnown("1.36.0").check(cast("Host", kubeadms)) is None


async def test_all_refusals_come_at_once() -> None:
    api = Api(node("cp1", ready=False), with_kubelet("w1", "1.17.0"), budget(0), pod("x", "w1", labels={"app": "web"}))
    checks = [PathAllowed("1.22.0"), ControlPlanesReady(["cp1"]), KubeletsFit("1.22.0"), BudgetsAllow(["w1"])]
    results = await look_at_all(checks, cast("Kube", api))
    assert [result.error.code for result in results if result.error] == ["SHW-780", "SHW-784", "SHW-785", "SHW-786"]
