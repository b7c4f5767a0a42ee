"""The steps of an upgrade on hosts and nodes that are nothing but what is known of them."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from shipway.cluster_file import parse_cluster
from shipway.converge import converge
from shipway.errors import (
    ApiUnavailable,
    Blocked,
    CommandFailed,
    DeadlineExceeded,
    Permanent,
    PostconditionFailed,
    Refused,
)
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.facts.packages import PackageInfo
from shipway.facts.services import UnitState
from shipway.facts.versions import ProgramVersion, StaticPodImages
from shipway.gpu.chosen import VENDOR
from shipway.gpu.jobs import ANNOTATION, LONGEST_SAVE, GpuJob, find_jobs, serves
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.drain import CORDONED
from shipway.kube.record import ASK
from shipway.kubeadm.writes import MANIFESTS
from shipway.os.debian.apt import APT
from shipway.os.debian.dpkg import Package
from shipway.os.debian.fetched import OPTIONS, SCRIPT
from shipway.os.debian.packages import madison
from shipway.ownership.evidence import KUBELET_CONF
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.evidence import KUBELET
from shipway.steps.kubernetes.health import KUBELET_CERTIFICATE
from shipway.steps.kubernetes.skew import CA, OnlyInItsVersion, VersionDeclared, _ask, permit_same_version
from shipway.steps.upgrade import gpu_jobs
from shipway.steps.upgrade import node as module
from shipway.steps.upgrade.control_plane import CONFIG, PROXY_IMAGE, ControlPlaneRuns, OwnApi, ProxyRuns
from shipway.steps.upgrade.fetched import BESIDE, PRESENT, ImagesPulled, list_images
from shipway.steps.upgrade.fetched import SCRIPT as PULL_SCRIPT
from shipway.steps.upgrade.gpu_jobs import GpuJobsOver
from shipway.steps.upgrade.node import EXECUTABLE, KubeletRunsVersion, NodeOpenedAgain, NodeReports, permit_not_newer
from tasks.waves import turn
from tests.places.facts import DEBIAN, KnownFacts, said, unit
from tests.retire.objects import Object, Objects, meta, node, pod

CLUSTER = parse_cluster(
    "name: te\nprofile: seed\nhosts: [{name: te1, address: 10.9.0.11}, {name: te2, address: 10.9.0.12, gpus: 1}]\n"
)
HOST = CLUSTER.hosts[0]
OWN = OwnApi("10.9.0.11", 6443)
SERVER = "https://10.9.0.11:6443"
CONF = f"clusters:\n- cluster:\n    server: {SERVER}\n"


class Upgrading(KnownFacts):
    """A host on which kubeadm's upgrade does what `after` says of the facts."""

    def __init__(self, facts: dict[Any, Any], after: dict[Any, Any] | None = None, *outputs: Output) -> None:
        super().__init__(facts)
        self.after, self.outputs = after or {}, list(outputs)

    async def operate(self, name: str, words: Any, **_: int) -> Output:
        """Keep what was run, and let it take effect."""
        self.done.append(f"{name}: {' '.join(words)}")
        output = self.outputs.pop(0) if self.outputs else Output(0, "", "")
        if output.ok:
            self.facts |= self.after
        return output


def control(version: str, record: str = "", served: str = "") -> dict[Any, Any]:
    images = {
        part: f"k8s.gcr.io/{part}:v{version}"
        for part in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    }
    return {
        StaticPodImages(MANIFESTS): {**images, "etcd": "k8s.gcr.io/etcd:3.4.13-0"},
        OWN.version: said(json.dumps({"gitVersion": f"v{served or version}"})),
        OWN.ask(*ASK): said(f"kubernetesVersion: v{record or version}\n"),
        ProgramVersion("kubeadm"): "1.21.0",
    }


def runs(version: str = "1.21.0") -> ControlPlaneRuns:
    return ControlPlaneRuns(version, CLUSTER, HOST)


async def test_the_first_control_plane_is_applied_and_the_others_follow_its_record() -> None:
    first = Upgrading(control("1.20.2"), control("1.21.0"))
    (result,) = await converge([runs()], first, Impact.WORKLOADS)
    assert result.outcome == "changed"
    assert result.drift is not None
    assert "kube-scheduler v1.20.2" in result.drift.have
    assert first.done[0] == "kubeadm-upgrade: kubeadm upgrade apply v1.21.0 -y"
    second = Upgrading(control("1.20.2", record="1.21.0"), control("1.21.0"))
    assert (await converge([runs()], second, Impact.WORKLOADS))[0].outcome == "changed"
    assert second.done[0] == "kubeadm-upgrade: kubeadm upgrade node"
    assert (await converge([runs()], second, Impact.WORKLOADS))[0].outcome == "ok"


async def test_what_was_killed_in_the_middle_is_gone_on_with() -> None:
    by_record = Upgrading(control("1.21.0", record="1.20.2"), control("1.21.0"))
    assert (await converge([runs()], by_record, Impact.WORKLOADS))[0].outcome == "changed"
    assert " apply " in by_record.done[0]
    still_old = Upgrading(control("1.21.0", served="1.20.2"))
    drift = await runs().check(cast("Host", still_old))
    assert drift is not None
    assert drift.have == "its API server answers as v1.20.2"


async def test_a_control_plane_that_cannot_be_told_is_not_upgraded() -> None:
    with pytest.raises(Blocked, match="no static pod"):
        await runs().check(cast("Host", KnownFacts({StaticPodImages(MANIFESTS): {}})))
    silent = KnownFacts({**control("1.20.2"), OWN.version: said("", 1)})
    with pytest.raises(ApiUnavailable):
        await runs().check(cast("Host", silent))
    old = Upgrading({**control("1.20.2"), ProgramVersion("kubeadm"): "1.20.2"})
    with pytest.raises(Blocked, match=r"kubeadm is 1\.20\.2"):
        await runs().apply(cast("Host", old))
    assert not old.done


async def test_a_kubeadm_that_fails_is_said_by_its_words() -> None:
    words = "static Pod hash for component etcd on Node te1 did not change after 5m0s: timed out"
    broken = Upgrading(control("1.20.2"), {}, Output(1, words, ""))
    with pytest.raises(CommandFailed) as raised:
        await runs().apply(cast("Host", broken))
    assert (raised.value.code, raised.value.may_retry) == ("SHW-794", True)


async def test_a_kubeadm_with_a_configuration_is_asked_by_it_and_an_early_one_without_yes() -> None:
    new = Upgrading({**control("1.35.9"), ProgramVersion("kubeadm"): "1.36.2"})
    await runs("1.36.2").apply(cast("Host", new))
    assert new.done[0] == f"kubeadm-upgrade: kubeadm upgrade apply v1.36.2 --config {CONFIG} -y"
    assert "forceUpgrade" not in new.written[CONFIG]
    mixed = Output(1, "", "can not mix '--config' with arguments [yes]")
    early = Upgrading({**control("1.30.9"), ProgramVersion("kubeadm"): "1.31.0"}, {}, mixed)
    await runs("1.31.0").apply(cast("Host", early))
    assert early.done[1] == f"kubeadm-upgrade: kubeadm upgrade apply v1.31.0 --config {CONFIG}"
    assert "forceUpgrade: true" in early.written[CONFIG]


async def test_kubeadms_own_add_ons_follow_the_last_control_plane() -> None:
    def proxy(tag: str) -> dict[Any, Any]:
        return {**control("1.21.0"), OWN.ask(*PROXY_IMAGE): said(f"k8s.gcr.io/kube-proxy:{tag}" if tag else "")}

    step = ProxyRuns("1.21.0", CLUSTER, HOST)
    behind = Upgrading(proxy("v1.20.2"), proxy("v1.21.0"))
    assert (await converge([step], behind, Impact.WORKLOADS))[0].outcome == "changed"
    assert await step.check(cast("Host", KnownFacts(proxy("")))) is None, "a cluster without kube-proxy"


class Packages:
    """A step about packages."""

    impact = Impact.WORKLOADS
    name = "kubelet and kubectl are 1.21.0"

    def __init__(self, host: KnownFacts | None = None) -> None:
        self.host, self.installed = host, False

    async def check(self, on: object) -> Drift | None:
        """Tell."""
        del on
        return None if self.installed else Drift("kubelet 1.20.2", "kubelet 1.21.0")

    async def apply(self, on: KnownFacts) -> None:
        """Install."""
        self.installed = True
        on.done.append("install")
        on.facts[EXECUTABLE] = said("/usr/bin/kubelet (deleted)")


def kubelet_host(api: str) -> Upgrading:
    asked = _ask(SERVER, "--cacert", CA, "--cert", KUBELET_CERTIFICATE)
    return Upgrading(
        {
            FileText(KUBELET_CONF): CONF,
            asked: said(json.dumps({"gitVersion": f"v{api}"})),
            ProgramVersion("kubeadm"): "1.21.0",
            UnitState("kubelet.service"): unit(),
            EXECUTABLE: said("/usr/bin/kubelet"),
        }
    )


class Held(Packages):
    """A step about holds."""

    async def apply(self, on: KnownFacts) -> None:
        """Hold."""
        on.done.append("hold")


@pytest.fixture(autouse=True)
def _no_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr(module.asyncio, "sleep", at_once)


async def test_a_kubelet_that_dies_at_once_is_told_by_its_last_words() -> None:
    host = kubelet_host("1.21.0")
    host.facts |= {UnitState("kubelet.service"): unit("activating"), KUBELET: said("Error: unknown flag: --gone\n")}
    with pytest.raises(PostconditionFailed, match="does not stay up") as raised:
        await KubeletRunsVersion("1.21.0", Packages(), Held(), CLUSTER).apply(cast("Host", host))
    assert "--gone" in raised.value.message
    assert host.done[-1] == "systemctl restart kubelet"


async def test_a_worker_is_configured_installed_and_restarted_in_that_order() -> None:
    host, packages = kubelet_host("1.21.0"), Packages()
    step = KubeletRunsVersion("1.21.0", packages, Held(), CLUSTER, by_kubeadm=True)
    drift = await step.check(cast("Host", host))
    assert drift is not None
    await step.apply(cast("Host", host))
    assert [line for line in host.done if not line.startswith("rm ")] == [
        "kubeadm-upgrade: kubeadm upgrade node",
        "install",
        "hold",
        "systemctl daemon-reload",
        "systemctl restart kubelet",
    ]
    drift = await step.check(cast("Host", host))
    assert drift is not None
    assert "before its program changed" in drift.have, "installed is not yet running: a killed run is gone on with"
    host.facts[EXECUTABLE] = said("/usr/bin/kubelet")
    assert await step.check(cast("Host", host)) is None
    host.facts[UnitState("kubelet.service")] = unit("failed")
    assert await step.check(cast("Host", host)) is not None


async def test_no_kubelet_is_newer_than_its_own_api_server() -> None:
    host, packages = kubelet_host("1.20.2"), Packages()
    with pytest.raises(Refused) as raised:
        await KubeletRunsVersion("1.21.0", packages, Held(), CLUSTER).apply(cast("Host", host))
    assert (raised.value.code, host.done) == ("SHW-785", [])
    await permit_not_newer(cast("Host", kubelet_host("1.22.0")), wanted="1.21.0")
    await permit_not_newer(cast("Host", KnownFacts({})), wanted="1.21.0")


async def test_a_control_planes_kubelet_goes_by_every_api_server_that_may_answer_it() -> None:
    """Its kubelet.conf leads to a load balancer, which answers as an old one now and as a new one then."""
    host, other = kubelet_host("1.20.2"), OwnApi("10.9.0.12", 6443)
    host.facts |= {OWN.version: said('{"gitVersion": "v1.21.0"}'), other.version: said('{"gitVersion": "v1.20.2"}')}
    await permit_not_newer(cast("Host", host), wanted="1.21.0", apis=(OWN,))
    with pytest.raises(Refused, match=r"10\.9\.0\.12 runs v1\.20\.2") as raised:
        await permit_not_newer(cast("Host", host), wanted="1.21.0", apis=(OWN, other))
    assert (raised.value.code, "list of hosts" in raised.value.fix) == ("SHW-785", False)
    host.facts[other.version] = said("", 7)
    with pytest.raises(Blocked, match=r"API server of 10\.9\.0\.12 cannot be determined"):
        await permit_not_newer(cast("Host", host), wanted="1.21.0", apis=(OWN, other))


async def test_bootstrap_and_repair_leave_a_kubelet_that_waits_for_its_upgrade() -> None:
    host = kubelet_host("1.21.0")
    host.facts[ProgramVersion("kubelet")] = "1.20.2"
    with pytest.raises(Refused, match="no upgrade has come here yet") as raised:
        await permit_same_version(cast("Host", host), wanted="1.21.0")
    assert "shipway upgrade" in raised.value.fix
    for kubelet in ("1.21.0", "1.21.3"):
        host.facts[ProgramVersion("kubelet")] = kubelet
        await permit_same_version(cast("Host", host), wanted="1.21.0")


async def test_the_repository_of_another_minor_is_not_made_known_to_a_node_that_is_not_to_get_it() -> None:
    host, source = kubelet_host("1.20.2"), Packages()
    step = OnlyInItsVersion(cast("Any", source), "1.21.0")
    for deed in (step.check, step.apply):
        with pytest.raises(Refused, match=r"the API server runs v1\.20\.2"):
            await deed(cast("Host", host))
    assert not source.installed
    bare = KnownFacts({})
    assert await step.check(cast("Host", bare)) is not None
    await step.apply(cast("Host", bare))
    assert await step.check(cast("Host", host)) is None, "what is known already is no question"


class Answers(Objects):
    """Objects, and a version."""

    async def raw(self, path: str) -> tuple[int, str]:
        """Answer /version."""
        del path
        return 200, json.dumps({"gitVersion": self._version})


async def test_another_version_than_the_files_is_a_finding_that_names_the_upgrade() -> None:
    api = cast("Kube", Answers(version="v1.20.2"))
    assert await VersionDeclared("1.20.2").check(api) is None
    silent = cast("Kube", Answers(version="unknown"))
    assert await VersionDeclared("1.20.2").check(silent) is None, "another look tells of it"
    drift = await VersionDeclared("1.21.0").check(api)
    assert drift is not None
    assert (drift.have, "shipway upgrade CLUSTER.yaml --plan" in drift.want) == ("v1.20.2", True)
    back = await VersionDeclared("1.19.0").check(api)
    assert back is not None
    assert "no way back" in back.want
    assert "shipway upgrade" not in back.want


def reporting(version: str, *, ready: bool = True, beat: str = "2026-11-29T05:00:10Z") -> Object:
    made = node("te2", ready=ready)
    made["status"]["nodeInfo"] = {"kubeletVersion": f"v{version}"}
    made["status"]["conditions"][0]["lastHeartbeatTime"] = beat
    return made


async def test_a_node_is_believed_only_by_what_it_said_after_its_kubelets_start() -> None:
    since = 1795928405  # 2026-11-29T05:00:05Z
    step = NodeReports("te2", "1.21.0", since)
    assert await step.check(cast("Kube", Objects(reporting("1.21.0")))) is None
    for made in (
        reporting("1.20.2"),
        reporting("1.21.0", ready=False),
        reporting("1.21.0", beat="2026-11-29T05:00:00Z"),
    ):
        assert await step.check(cast("Kube", Objects(made))) is not None
    assert await step.check(cast("Kube", Objects())) is not None


async def test_only_a_node_that_we_closed_is_opened() -> None:
    ours, other = node("te2", closed=True), node("te3", closed=True)
    ours["metadata"]["annotations"] = {CORDONED: json.dumps({"by": "shipway", "why": "upgrade", "since": "now"})}
    api = Objects(ours, other)
    assert [one.outcome for one in await converge([NodeOpenedAgain("te2")], cast("Kube", api), Impact.WORKLOADS)] == [
        "changed"
    ]
    assert ours["spec"]["unschedulable"] is None
    assert (await converge([NodeOpenedAgain("te3")], cast("Kube", api), Impact.WORKLOADS))[0].outcome == "ok"
    assert other["spec"]["unschedulable"] is True


LIMITS = {"resources": {"limits": {VENDOR.resource: "1"}}}


def gpu_pod(name: str, on: str, owner: str = "", **annotations: str) -> Object:
    made = pod(name, on, owner=owner, container=LIMITS)
    made["metadata"]["annotations"] = {
        f"shipway.dev/{key.replace('_', '-')}": value for key, value in annotations.items()
    }
    return made


def owned(kind: str, name: str, above: tuple[str, str] = ("", ""), **annotations: str) -> Object:
    owners = [{"apiVersion": "x/v1", "kind": above[0], "name": above[1], "controller": True}] if above[0] else []
    notes = {f"shipway.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"kind": kind, "metadata": {**meta(name, "default"), "ownerReferences": owners, "annotations": notes}}


class Unavailable(Objects):
    """An API that at times does not answer for a Job."""

    away = False

    async def get(self, api_version: str, kind: str, *names: str, **more: Any) -> Object | None:
        """Answer, or not."""
        if kind == "Job" and self.away:
            raise ApiUnavailable("no answer")
        return await super().get(api_version, kind, *names, **more)


async def test_jobs_are_known_by_their_owner_at_the_top_and_the_nearest_annotation() -> None:
    api = Objects(
        gpu_pod("a", "te2", owner="Job"),
        owned("Job", "a-owner", above=("JobSet", "train")),
        owned("JobSet", "train", gpu_jobs="never"),
        gpu_pod("b", "te2", gpu_jobs="evict"),
        gpu_pod("c", "te3", owner="ReplicaSet", gpu_jobs="nonsense"),
        pod("d", "te2"),
        {"kind": "Namespace", "metadata": meta("default")},
    )
    jobs = await find_jobs(cast("Kube", api), "wait")
    assert [(job.pod, job.owner, job.policy) for job in jobs] == [
        ("default/a", "JobSet default/train", "never"),
        ("default/b", "", "evict"),
        ("default/c", "ReplicaSet default/c-owner", "wait"),
    ]
    assert jobs[0].said == f"default/a of JobSet default/train ({VENDOR.resource}: 1: never)"
    assert ANNOTATION == "shipway.dev/gpu-jobs"


def saving(*, grace: Any = 300, seconds: str = "120", owner: str = "Job", **job: Any) -> list[Object]:
    """Return a pod of a Job that says in how many seconds its work is saved, and the Job."""
    one = gpu_pod("a", "te2", owner=owner, checkpoint_seconds=seconds)
    if grace:
        one["spec"]["terminationGracePeriodSeconds"] = grace
    of = owned(owner, "a-owner", gpu_jobs="checkpoint")
    return [one, of | job]


@pytest.mark.parametrize(
    ("objects", "policy", "note"),
    [
        (saving(), "checkpoint", "saves its work within 120 s"),
        (saving(grace=120), "checkpoint", "saves its work within 120 s"),
        (saving(grace=119), "wait", "and is killed after 119 s"),
        (saving(grace=None), "wait", "and is killed after 30 s"),
        (saving(grace=None, seconds="30"), "checkpoint", "within 30 s"),
        (saving(seconds="0"), "wait", "for nothing says how long"),
        (saving(seconds="two minutes"), "wait", "for nothing says how long"),
        (saving(grace=1500, seconds="1500"), "checkpoint", "within 1500 s"),
        (saving(owner="TrainJob", status={"failed": 6}), "checkpoint", "within 120 s"),
        (saving(grace=9000, seconds="1501"), "wait", "a drain gives it 1500 s at most"),
        (saving(spec={"backoffLimit": 0}), "wait", "its Job a-owner would have failed with it"),
        (saving(status={"failed": 6}), "wait", "its Job a-owner would have failed with it"),
        (saving(status={"failed": 5}), "checkpoint", "within 120 s"),
        (
            saving(spec={"backoffLimit": 0, "podFailurePolicy": {"rules": [{"action": "Ignore"}]}}),
            "checkpoint",
            "within 120 s",
        ),
    ],
)
async def test_a_job_is_told_to_save_its_work_only_where_it_says_that_it_does_and_is_given_the_time(
    objects: list[Object], policy: str, note: str
) -> None:
    api = cast("Kube", Objects(*objects))
    (job,) = await find_jobs(api, "never")
    assert (job.policy, note in job.said) == (policy, True)
    assert (await GpuJobsOver("te2", "never", 60).check(api) is None) == (policy == "checkpoint")


async def test_the_nearest_says_how_long_it_takes_and_none_is_none() -> None:
    one, job = saving()
    job["metadata"]["annotations"]["shipway.dev/checkpoint-seconds"] = "60"
    api = cast("Kube", Objects(one, job))
    assert [found.note for found in await find_jobs(api, "wait")] == ["saves its work within 120 s"]
    del one["metadata"]["annotations"]
    assert [found.note for found in await find_jobs(api, "wait")] == ["saves its work within 60 s"]
    del job["metadata"]["annotations"]
    (found,) = await find_jobs(api, "checkpoint")
    assert "nothing says how long" in found.note


async def test_pods_that_hold_nothing_of_a_node_are_no_jobs() -> None:
    waits, proof = gpu_pod("waits", "te2", owner="Job"), gpu_pod("gpu-test-1", "te2")
    del waits["spec"]["nodeName"]
    proof["metadata"]["namespace"] = "shipway-verify"
    assert await find_jobs(cast("Kube", Objects(waits, proof)), "wait") == []


def test_only_what_is_waited_for_ends_or_is_moved() -> None:
    rows = [(policy, serves) for policy in ("wait", "checkpoint", "evict", "never") for serves in (False, True)]
    jobs = {row: GpuJob("a/b", "te2", "x: 1", "", cast("Any", row[0]), row[1]) for row in rows}
    assert [row for row, job in jobs.items() if job.ends] == [("wait", False)]
    assert [row for row, job in jobs.items() if "moved while" in job.said] == [("wait", True)]


@pytest.mark.parametrize(
    ("owner", "moved"), [("ReplicaSet", True), ("ReplicationController", True), ("StatefulSet", False), ("", False)]
)
def test_replicas_that_run_forever_serve(owner: str, *, moved: bool) -> None:
    assert serves(gpu_pod("a", "te2", owner=owner)) == moved


async def test_a_job_that_nothing_would_start_again_is_not_ended_to_save_its_work() -> None:
    bare = gpu_pod("a", "te2", owner="", checkpoint_seconds="20")
    (job,) = await find_jobs(cast("Kube", Objects(bare)), "checkpoint")
    assert (job.policy, "nothing would start it again" in job.said) == ("wait", True)


def test_a_drain_takes_longer_than_any_promise_that_is_believed() -> None:
    assert LONGEST_SAVE < turn.DRAIN_SECONDS


async def test_a_job_is_waited_for_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    api, heard = Objects(gpu_pod("a", "te2")), list[str]()

    async def later(_: float) -> None:
        api.objects[0]["status"]["phase"] = "Succeeded"

    monkeypatch.setattr(gpu_jobs.asyncio, "sleep", later)
    step = GpuJobsOver("te2", "wait", 60, heard.append)
    (result,) = await converge([step], cast("Kube", api), Impact.WORKLOADS)
    assert result.outcome == "changed"
    assert heard == [f"waiting for GPU jobs on te2: default/a, of nobody ({VENDOR.resource}: 1: wait)"]


async def test_an_api_that_restarts_during_the_wait_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    api, heard = Unavailable(gpu_pod("a", "te2", owner="Job"), owned("Job", "a-owner")), list[str]()

    async def later(_: float) -> None:
        api.away = not api.away
        api.objects[0]["status"]["phase"] = "Running" if api.away else "Succeeded"

    monkeypatch.setattr(gpu_jobs.asyncio, "sleep", later)
    await GpuJobsOver("te2", "wait", 60, heard.append).apply(cast("Kube", api))
    assert [line.rpartition(": ")[2] for line in heard] == ["wait)", "no answer"]


async def test_an_owner_that_cannot_be_asked_for_now_is_not_taken_for_one_that_says_nothing() -> None:
    api = Unavailable(gpu_pod("a", "te2", owner="Job"), owned("Job", "a-owner", gpu_jobs="never"))
    api.away = True
    with pytest.raises(ApiUnavailable):
        await find_jobs(cast("Kube", api), "evict")
    gone = Objects(gpu_pod("a", "te2", owner="Job"), missing=("Job",))
    assert [job.owner for job in await find_jobs(cast("Kube", gone), "evict")] == ["Job default/a-owner"]


async def test_the_wait_has_an_end_and_what_is_never_touched_has_none() -> None:
    api = cast("Kube", Objects(gpu_pod("a", "te2")))
    with pytest.raises(DeadlineExceeded) as raised:
        await GpuJobsOver("te2", "wait", 0).apply(api)
    assert (raised.value.code, raised.value.may_retry) == ("SHW-795", False)
    with pytest.raises(Refused, match="never touched"):
        await GpuJobsOver("te2", "never", 60).check(api)
    assert await GpuJobsOver("te2", "evict", 60).check(api) is None


LISTED = (
    "k8s.gcr.io/kube-apiserver:v1.21.0\nk8s.gcr.io/kube-proxy:v1.21.0\nk8s.gcr.io/pause:3.2\nk8s.gcr.io/etcd:3.4.13-0\n"
)


async def test_only_the_images_of_a_hosts_role_are_pulled() -> None:
    facts = {
        list_images("1.21.0", "k8s.gcr.io"): said(LISTED),
        PRESENT: said("k8s.gcr.io/pause:3.2\nsha256:abc\n"),
    }
    worker, host = ImagesPulled("1.21.0", "k8s.gcr.io", control=False), KnownFacts(facts)
    drift = await worker.check(cast("Host", host))
    assert drift is not None
    assert drift.have == "missing: k8s.gcr.io/kube-proxy:v1.21.0"
    await worker.apply(cast("Host", host))
    assert host.done == [
        f"pull-images: bash {PULL_SCRIPT} unix:///run/containerd/containerd.sock k8s.gcr.io/kube-proxy:v1.21.0"
    ]
    wide = await ImagesPulled("1.21.0", "k8s.gcr.io", control=True).check(cast("Host", host))
    assert wide is not None
    assert "kube-apiserver:v1.21.0; k8s.gcr.io/kube-proxy:v1.21.0; k8s.gcr.io/etcd:3.4.13-0" in wide.have
    bare = KnownFacts({list_images("1.21.0", "k8s.gcr.io"): said("", 127)})
    with pytest.raises(Blocked, match=r"kubeadm 1\.21\.0 is not there yet"):
        await worker.check(cast("Host", bare))


OLD = PackageInfo("1.20.2-00", held=True, sound=True)


def apt_host(offered: str, uris: str = "") -> KnownFacts:
    words = (*APT, "--print-uris", *OPTIONS, "install", "--", "kubelet=1.21.0-00")
    return KnownFacts(
        {
            Package("kubelet"): OLD,
            madison({"kubelet": "1.21.0"}): said(offered),
            Says(words, 60): said(uris),
            madison(("kubeadm",)): said(offered.replace("kubelet", "kubeadm")),
            ProgramVersion("kubeadm"): "1.20.2",
        }
    )


ROW = " kubelet | 1.21.0-00 | http://mirror/apt/kubernetes-1.21 ./ Packages\n"


async def test_packages_are_fetched_and_not_installed() -> None:
    step = DEBIAN.fetched("packages of 1.21.0 are fetched", {"kubelet": "1.21.0"})
    missing = apt_host(ROW, "'http://mirror/kubelet.deb' kubelet.deb 1 SHA256:x\n")
    drift = await step.check(cast("Host", missing))
    assert drift is not None
    assert drift.have == "1 files are not fetched"
    await step.apply(cast("Host", missing))
    assert len(missing.done) == 1
    assert "--download-only" in missing.done[0]
    assert await step.check(cast("Host", apt_host(ROW))) is None
    nowhere = await step.check(cast("Host", apt_host("")))
    assert nowhere is not None
    assert "not offered kubelet 1.21.0" in nowhere.have


async def test_a_version_that_nobody_offers_is_said_so() -> None:
    bare = apt_host("")
    bare.forget = lambda: None  # type: ignore[method-assign]
    with pytest.raises(Permanent) as raised:
        await DEBIAN.fetched("x", {"kubelet": "1.21.0"}).apply(cast("Host", bare))
    assert raised.value.code == "SHW-307"
    with pytest.raises(Permanent):
        await DEBIAN.beside("kubeadm", "1.21.0", BESIDE).apply(cast("Host", bare))


async def test_the_new_kubeadm_lies_beside_the_old_one_until_it_is_installed() -> None:
    step, host = DEBIAN.beside("kubeadm", "1.21.0", BESIDE), apt_host(ROW)
    assert await step.check(cast("Host", host)) is not None
    await step.apply(cast("Host", host))
    assert host.done == [f"apt: bash {SCRIPT} kubeadm=1.21.0-00 /usr/bin/kubeadm {BESIDE}"]
    host.facts[ProgramVersion("kubeadm", BESIDE)] = "1.21.0"
    assert await step.check(cast("Host", host)) is None
    assert await step.check(cast("Host", KnownFacts({ProgramVersion("kubeadm"): "1.21.0"}))) is None
