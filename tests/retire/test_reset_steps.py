"""A reset takes off a host what Kubernetes and a bootstrap brought, once, whole, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from shipway.converge import converge, look_at_all
from shipway.edits.containerd import BEFORE, CONFIG
from shipway.edits.files import FileEdited, FileIs
from shipway.errors import PostconditionFailed, Refused
from shipway.host.session import Host
from shipway.step import Check, Impact, StepResult
from shipway.steps.gpu.mig import GpusWhole
from shipway.steps.reset.files import OwnFoldersGone
from shipway.steps.reset.kubelet import ContainersGone, foreign_namespaces, mounts_below, still_allowed
from shipway.steps.reset.network import own_networks, pod_routes
from tasks.context import Run
from tasks.retire.work import reset_steps
from tasks.stages.listed import PREPARATION
from tests.places.facts import DEBIAN
from tests.retire.joined_host import FOREIGN, OWN_RULES, PACKAGED, JoinedHost, KilledError, cluster


def steps(still: Any = still_allowed) -> list[Check[Host]]:
    run = Run(cluster(), "reset")
    return reset_steps(run, "te2", still)


async def run_steps(on: JoinedHost, still: Any = still_allowed) -> list[StepResult]:
    return await converge(cast("Sequence[Check[JoinedHost]]", steps(still)), on, Impact.WORKLOADS)


async def emptied() -> JoinedHost:
    host = JoinedHost()
    results = await run_steps(host)
    assert {one.outcome for one in results} == {"ok", "changed"}, [one for one in results if one.outcome == "failed"]
    return host


def test_gpus_are_whole_again_once_no_container_has_one_and_before_nobody_knows_who_divided_them() -> None:
    kinds = [type(step) for step in steps()]
    assert kinds.index(ContainersGone) < kinds.index(GpusWhole) < kinds.index(OwnFoldersGone)


async def test_a_second_reset_changes_nothing() -> None:
    host = await emptied()
    before = host.state()
    assert {one.outcome for one in await run_steps(host)} == {"ok"}
    assert host.state() == before


async def test_nothing_of_kubernetes_and_nothing_of_ours_is_left() -> None:
    host = await emptied()
    assert host.units == {"kubelet": ["inactive", "disabled"], "containerd": ["active", "enabled"]}
    assert (host.containers, host.links) == (0, {"lo", "eth0", "docker0"})
    assert host.mounts == ["/", "/var/lib/kubelet"]
    assert host.routes == [
        "default via 10.0.0.254 dev eth0",
        "10.244.64.0/20 via 10.0.0.253 dev eth0",
        "10.0.0.0/24 dev eth0",
    ]
    left = [path for path in host.files if "shipway" in path or "kubernetes/" in path or path.startswith("/var/lib/k")]
    assert left == ["/var/lib/shipway/backups/2026/snapshot.db", "/etc/systemd/system/shipwayward.service"]
    assert host.files[CONFIG].decode() == PACKAGED
    assert BEFORE not in host.files
    assert not any(b"shipway" in text.lower() for text in host.files.values())


async def test_what_is_the_sites_stays_byte_for_byte() -> None:
    host = await emptied()
    assert {path: host.files.get(path) for path in FOREIGN} == FOREIGN
    assert set(OWN_RULES) <= set(host.rules)
    assert not any("KUBE-" in rule for rule in host.rules)
    assert host.netns == {"cni-podmans": "71\n", "site": ""}
    assert host.files["/var/lib/cni/networks/podman/10.88.0.2"] == b"x"
    assert host.files["/etc/modules-load.d/k8s.conf"] == b"site_module\n"
    assert host.files["/etc/hosts"] == b"127.0.0.1 localhost\n10.0.0.9 printer\n127.0.1.1 te2\n"
    assert host.files["/etc/fstab"] == b"/dev/sda1 / ext4 defaults 0 1\n/swap.img none swap sw 0 0\n"
    assert host.files["/etc/apt/sources.list"] == b"deb http://deb.debian.org/debian bookworm main\n"
    assert {name for name, one in host.packages.items() if one.held} == {"site-agent"}


async def test_cluster_files_of_a_host_that_is_a_controller_as_well_stay() -> None:
    """docs/deployments.md has them in /etc/shipway/clusters, and a reset emptied /etc/shipway."""
    host = JoinedHost()
    host.files["/etc/shipway/clusters/prod.yaml"] = b"name: prod\n"
    await run_steps(host)
    assert host.files.get("/etc/shipway/clusters/prod.yaml") == b"name: prod\n"


async def test_old_keys_that_a_renewal_kept_go_with_the_others() -> None:
    host = JoinedHost()
    kept = (
        *("before-renewal-20261129T000000Z/pki/ca.key", "manifests-moved-by-shipway/kube-scheduler.yaml"),
        *("manifests-before-shipway/kube-apiserver.yaml", "shipway/encryption.yaml"),
    )
    host.files |= {f"/etc/kubernetes/{name}": b"x" for name in kept}
    await run_steps(host)
    assert not [path for path in host.files if path.endswith(kept)]


async def test_chains_of_cni_stay_where_another_program_has_a_network_of_its_own() -> None:
    host = JoinedHost()
    await run_steps(host)
    assert ":CNI-HOSTPORT-DNAT - [0:0]" in host.rules
    alone = JoinedHost()
    del alone.files["/etc/cni/net.d/87-podman-bridge.conflist"]
    await run_steps(alone)
    assert not any("CNI-" in rule for rule in alone.rules)


async def test_where_kubeadm_is_not_installed_any_more_its_files_go_all_the_same() -> None:
    host = JoinedHost()
    del host.packages["kubeadm"]
    static = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    configs = ("kubelet", "bootstrap-kubelet", "admin", "super-admin", "controller-manager", "scheduler")
    made = [f"/etc/kubernetes/manifests/{name}.yaml" for name in static]
    made += [f"/etc/kubernetes/{name}.conf" for name in configs]
    made += ["/var/lib/kubelet/instance-config.yaml", "/var/lib/kubelet/kubeadm-flags.env", "/var/lib/etcd/member/snap"]
    for path in made:
        host.files[path] = b"x"
    own = "/etc/kubernetes/manifests/kube-vip.yaml"
    host.files[own] = b"a person's"
    (seen,) = [one for one in await look_at_all(steps(), host) if one.step == "nothing of kubeadm's is left"]  # type: ignore[arg-type]
    assert seen.outcome == "drifted"
    for path in made:
        alone = JoinedHost()
        alone.files = {path: b"x", "/etc/kubernetes/manifests/etcd.yaml": b"x"} if "etcd" in path else {path: b"x"}
        (one,) = [found for found in await look_at_all(steps(), alone) if found.step == seen.step]  # type: ignore[arg-type]
        assert one.outcome == "drifted", path
    results = await run_steps(host)
    assert "failed" not in {one.outcome for one in results}
    assert [path for path in made if path in host.files] == []
    assert host.files[own] == b"a person's"
    assert not [words for words in host.ran if words[:2] == ("kubeadm", "reset")]


async def test_a_pass_that_may_only_restart_services_ends_no_pod() -> None:
    host = JoinedHost()
    results = await converge(cast("Sequence[Check[JoinedHost]]", steps()), host, Impact.SERVICE)
    ended = [one.step for one in results if one.outcome == "drifted"]
    assert host.containers == 4
    assert {one.impact for one in results if one.step in ended} == {Impact.WORKLOADS}
    assert len(ended) == 11, ended


async def test_a_plan_lists_what_goes_and_changes_nothing() -> None:
    host = JoinedHost()
    before = host.state()
    results = await look_at_all(cast("Sequence[Check[JoinedHost]]", steps()), host)
    assert host.state() == before
    said = {one.step: str(one.drift) for one in results if one.outcome == "drifted"}
    assert "kubelet.conf" in said["nothing of kubeadm's is left"]
    assert "cni0" in said["no interface of a pod network is left, and no route into it"]
    assert "10-calico.conflist" in said["no pod network is configured"]
    assert len(said) > 20


async def test_a_controller_killed_after_any_change_is_followed_by_a_run_that_ends_the_same() -> None:
    whole = await emptied()
    most, wanted = whole.changes, whole.state()
    assert most > 30
    for lives in range(most):
        host = JoinedHost(die_after=lives)
        with pytest.raises(KilledError):
            await run_steps(host)
        host.die_after = -1
        results = await run_steps(host)
        assert "failed" not in {one.outcome for one in results}, lives
        assert host.state() == wanted, f"killed after {lives} changes"


async def test_what_forbids_a_reset_is_asked_before_the_first_change() -> None:
    async def forbid() -> None:
        raise Refused("it has joined again", code="SHW-702")

    host = JoinedHost()
    before = host.state()
    results = await run_steps(host, forbid)
    assert host.state() == before
    assert [one.error.code for one in results if one.outcome == "failed" and one.error] == ["SHW-702"]
    assert "unknown" in {one.outcome for one in results}


async def test_beside_containers_of_others_containerd_and_systemd_are_left_alone() -> None:
    host = JoinedHost(foreign="moby")
    before = host.files[CONFIG]
    await run_steps(host)
    assert host.files[CONFIG] == before
    assert host.units["kubelet"] == ["inactive", "enabled"], "to disable it would let systemd read its units anew"
    assert not [words for words in host.ran if words[:2] in (("systemctl", "restart"), ("systemctl", "daemon-reload"))]


async def test_a_configuration_that_somebody_edited_since_is_left() -> None:
    host = JoinedHost()
    host.files[CONFIG] += b"# mine\n"
    before = host.files[CONFIG]
    await run_steps(host)
    assert host.files[CONFIG] == before
    assert host.files[BEFORE].decode() == PACKAGED


async def test_etcds_data_that_no_manifest_of_kubeadms_names_is_never_touched() -> None:
    host = JoinedHost()
    host.files["/var/lib/etcd/member/snap"] = b"precious"
    await run_steps(host)
    assert host.files["/var/lib/etcd/member/snap"] == b"precious"


async def test_kubeadms_own_etcd_goes_also_where_a_reset_was_broken_off_after_its_manifest() -> None:
    for lives in range(6):
        host = JoinedHost(die_after=lives)
        host.files["/var/lib/etcd/member/snap"] = b"x"
        host.files["/etc/kubernetes/manifests/etcd.yaml"] = b"x"
        with pytest.raises(KilledError):
            await run_steps(host)
        host.die_after = -1
        await run_steps(host)
        assert "/var/lib/etcd/member/snap" not in host.files


def test_every_file_that_a_bootstrap_writes_is_in_the_registry_of_a_reset() -> None:
    """A new step with a path of its own makes this fail: say in shipway/steps/reset/files.py how it is taken back."""
    declared = cluster()
    written = {
        step.path
        for stage in PREPARATION
        for step in stage.steps(declared, declared.hosts[1], DEBIAN)
        if isinstance(step, FileIs | FileEdited) or hasattr(step, "path")
    }
    taken = {path for step in steps() if (path := getattr(step, "path", ""))}
    assert written - taken == set()


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ("10.244.65.0/24 via 10.0.0.1 dev eth0", [["10.244.65.0/24"]]),
        ("blackhole 10.244.66.0/26 proto 80", [["blackhole", "10.244.66.0/26"]]),
        ("10.244.64.0/20 via 10.0.0.253 dev eth0", []),
        ("default via 10.0.0.254 dev eth0\n10.0.0.0/24 dev eth0 scope link", []),
        ("blackhole\n\nnonsense 1", []),
    ],
)
def test_only_routes_to_a_part_of_the_pod_network_are_a_clusters(shown: str, found: list[list[str]]) -> None:
    assert pod_routes(shown, cluster().kubernetes.pod_network) == found


def test_mounts_and_namespaces_and_networks_are_read_as_they_are_written() -> None:
    points = ("/", "/var/lib/kubelet", "/var/lib/kubelet/a\\040b", "/var/lib/kubelets/c")
    text = "".join(f"x {point} ext4 rw 0 0\n" for point in points)
    assert mounts_below(text, "/var/lib/kubelet") == ["/var/lib/kubelet/a b"]
    assert foreign_namespaces("-namespace\nmoby\n--\n-namespace\nk8s.io\n/proc/1/cmdline\n") == ("moby",)
    assert own_networks(["10-calico.conflist", "calico-kubeconfig", "87-podman.conflist", "nerdctl-a.conflist"]) == [
        "10-calico.conflist",
        "calico-kubeconfig",
    ]


async def test_a_containerd_that_stands_still_is_started_to_be_asked_for_containers() -> None:
    host = JoinedHost()
    host.units["containerd"] = ["inactive", "enabled"]
    host.silent = True
    step = ContainersGone()
    drift = await step.check(cast("Host", host))
    assert drift is not None
    assert "containerd does not" in drift.have
    await step.apply(cast("Host", host))
    assert host.units["containerd"] == ["active", "enabled"]
    assert host.containers == 0
    assert await step.check(cast("Host", host)) is None, "nothing runs any more, whoever can be asked"


async def test_containers_that_run_where_containerd_cannot_be_asked_are_not_passed_over() -> None:
    host = JoinedHost()
    host.silent = True
    with pytest.raises(PostconditionFailed, match="containerd cannot be asked"):
        await ContainersGone().check(cast("Host", host))


async def test_a_reset_of_kubeadms_that_fails_is_an_error_and_nothing_after_it_is_done() -> None:
    host = JoinedHost()
    host.kubeadm_fails = True
    results = await run_steps(host)
    (failed,) = [one for one in results if one.outcome == "failed"]
    assert failed.step == "nothing of kubeadm's is left"
    assert host.containers == 4
    host.kubeadm_fails = False
    assert "failed" not in {one.outcome for one in await run_steps(host)}
