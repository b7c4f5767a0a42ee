"""Simulated hosts through the product's own SSH and steps: bootstrap, interruption, drift, and every asked failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.simulated.failures import Failure, Spec
from lab.simulated.options import Options
from shipway.errors import (
    ApiUnavailable,
    Blocked,
    CommandFailed,
    ConnectionLost,
    DeadlineExceeded,
    LoginRefused,
    ShipwayError,
    Unreachable,
)
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.host.session import Command
from shipway.kube.client import Kube
from shipway.ownership.evidence import ADMIN, KUBELET_CONF
from shipway.step import Impact
from shipway.steps.endpoint.old_way import SERVERS, find_asking
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from tests.places.simulated import PREPARATION, Place, failed, outcomes, simulated_place

AT_ONCE = Options(hosts=2, scale=0.0, cluster={"ssh": {"connect_seconds": 1.0}})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with simulated_place(tmp_path, AT_ONCE) as one:
        yield one


async def _bootstrapped(place: Place) -> None:
    assert failed(await place.prepare("te1", "te2")) == []
    assert failed(await place.init()) == []
    assert failed(await place.join("te2")) == []


async def test_a_bootstrap_by_the_products_steps_makes_a_cluster_and_a_second_run_changes_nothing(place: Place) -> None:
    await _bootstrapped(place)
    assert place.ready() == {"te1": True, "te2": True}
    before = {name: place.machine(name).digest() for name in ("te1", "te2")}
    asked = {name: place.session(name).round_trips for name in ("te1", "te2")}
    again = [*await place.prepare("te1", "te2"), *await place.init(), *await place.join("te2")]
    assert outcomes(again) == {"ok"}
    assert {name: place.machine(name).digest() for name in ("te1", "te2")} == before
    assert place.session("te2").round_trips - asked["te2"] == len(PREPARATION) + 1, "one round trip a stage"
    assert place.machine("te1").not_simulated == place.machine("te2").not_simulated == []


async def test_no_host_is_reset_on_which_nothing_was_ever_run(place: Place) -> None:
    """What packages and people put into kubeadm's folders is no sign of an init or a join, and it stays."""
    assert failed(await place.prepare("te1", "te2")) == []
    keep, own = "/etc/kubernetes/manifests/.kubelet-keep", "/etc/kubernetes/manifests/kube-vip.yaml"
    for name in ("te1", "te2"):
        files = place.machine(name).files
        files.write(keep, b"")
        files.write(own, b"kind: Pod\n")
        files.make_directory("/etc/kubernetes/pki")
    assert failed(await place.init()) == []
    assert failed(await place.join("te2")) == []
    for name in ("te1", "te2"):
        assert not [ran.words for ran in place.machine(name).ran if "reset" in ran.words]
        assert place.machine(name).files.exists(own)
        assert place.machine(name).files.exists(keep)


async def test_a_plan_on_bare_hosts_changes_nothing(place: Place) -> None:
    before = place.machine("te1").digest()
    results = await place.prepare("te1", allow=Impact.NOTHING)
    assert "drifted" in outcomes(results)
    assert "changed" not in outcomes(results)
    assert place.machine("te1").digest() == before
    assert {ran.verb for ran in place.machine("te1").ran} == {"r"}


DRIFTS: tuple[tuple[str, dict[str, str], str], ...] = (
    ("swap-on", {}, "swap is off"),
    ("sysctl", {"key": "net.ipv4.ip_forward", "value": "0"}, "kernel settings are live"),
    ("edit", {"path": "/etc/sysctl.d/k8s.conf", "old": "forward = 1", "new": "forward = 0"}, "kernel settings last"),
    ("mode", {"path": "/etc/sysctl.d/90-shipway-inotify.conf", "mode": "600"}, "inotify limits last"),
    (
        "edit",
        {"path": "/etc/modules-load.d/k8s.conf", "old": "overlay", "new": "#"},
        "kernel modules load at boot",
    ),
    ("stop", {"unit": "containerd"}, "containerd runs"),
    ("unhold", {"package": "kubelet"}, "kubelet, kubeadm, kubectl are held"),
    ("hostname", {"name": "another"}, "the host name is te1"),
)


async def test_what_drifts_is_seen_by_name_and_repaired(place: Place) -> None:
    assert failed(await place.prepare("te1")) == []
    for kind, values, name in DRIFTS:
        place.lab.drift("te1", kind, values)
        plan = await place.prepare("te1", allow=Impact.NOTHING)
        assert name in [result.step for result in plan if result.outcome == "drifted"], kind
        assert failed(await place.prepare("te1")) == [], kind
        assert outcomes(await place.prepare("te1", allow=Impact.NOTHING)) == {"ok"}, kind


async def test_a_connection_cut_before_a_command_leaves_no_effect_and_one_cut_after_it_does(place: Place) -> None:
    host, machine = place.session("te1"), place.machine("te1")
    place.lab.fail_command("te1", Failure("cut-before", "mkdir /before"))
    with pytest.raises(ConnectionLost):
        await host.do(Command(("mkdir", "/before")))
    assert not machine.files.exists("/before")
    place.lab.fail_command("te1", Failure("cut-after", "mkdir /after"))
    with pytest.raises(ConnectionLost):
        await host.do(Command(("mkdir", "/after")))
    assert machine.files.exists("/after")
    await host.do(Command(("mkdir", "/again")))  # a connection is made anew


async def test_a_command_fails_hangs_or_lies_as_often_as_asked(place: Place) -> None:
    host = place.session("te1")
    place.lab.fail_command("te1", Failure("exit", "true", nth=2, text="it was asked"))
    await host.do(Command(("true",)))
    with pytest.raises(CommandFailed, match="it was asked"):
        await host.do(Command(("true",)))
    place.lab.fail_command("te1", Failure("hang", "sync"))
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await host.do(Command(("sync",), seconds=3600))
    assert time.monotonic() - started < 5, "a hang costs simulated time"
    place.lab.fail_command("te1", Failure("garbage", "cat"))
    text = await host.read(FileText("/etc/hostname"))
    assert text is not None
    assert "te1" not in text


async def test_a_write_that_fails_before_it_reads_its_content_says_why_and_keeps_the_connection(place: Place) -> None:
    """A full disk, say: the script has ended before the content was sent, and its channel is closed by then."""
    host = place.session("te1")
    for nth in range(1, 4):
        place.lab.fail_command("te1", Failure("exit", f"file{nth}.shipway-new", text="no room for it"))
        with pytest.raises(CommandFailed, match="no room for it"):
            await host.write(f"/etc/file{nth}", b"x" * 300_000)
    await host.write("/etc/file4", b"x" * 300_000)
    assert await host.read(FileText("/etc/file4")) == "x" * 300_000


async def test_a_host_that_is_cut_off_or_refuses_is_unreachable_and_comes_back(place: Place) -> None:
    host = place.session("te2")
    assert await host.read(FileText("/etc/hostname"))
    for refuse in (True, False):
        place.lab.cut("te2", refuse=refuse)
        host.forget()
        with pytest.raises((Unreachable, ConnectionLost)):
            await host.read(FileText("/etc/hostname"))
        with pytest.raises(Unreachable):
            await host.read(FileText("/etc/hostname"))
        place.lab.plug("te2")
        assert await host.read(FileText("/etc/hostname"))
    assert await place.session("te1").read(FileText("/etc/hostname")), "the others never noticed"


async def test_a_stalled_link_answers_nothing(place: Place) -> None:
    host = place.session("te2")
    await host.read(FileText("/etc/hostname"))
    place.lab.cut("te2", stall=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(host.read(FileText("/etc/fstab")), 0.5)


async def test_a_user_without_sudo_rights_is_reported_so(place: Place) -> None:
    place.lab.drift("te1", "no-sudo", {})
    with pytest.raises(LoginRefused, match="without a password"):
        await place.session("te1").read(FileText("/etc/hostname"))


KILLED_AT = (
    ("Running pre-flight checks", 0.1),
    ('Generating "ca"', 0.1),
    ('Writing "scheduler.conf"', 0.1),
    ("Starting the kubelet", 0.1),
    ("[wait-control-plane]", 4.0),  # etcd has written its data after 2 s
)


async def test_kubeadm_init_killed_in_the_middle_is_repaired_and_nothing_is_initialised_twice(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options(hosts=1, scale=0.02)) as place:
        assert failed(await place.prepare("te1")) == []
        machine, seen = place.machine("te1"), set()
        for text, after in KILLED_AT:
            place.lab.fail_command("te1", Failure("kill", "--unit=shipway-kubeadm-init", text=text, after=after))
            assert failed(await place.init()) != [], text
            etcd = machine.files.exists("/var/lib/etcd/member")
            authority = machine.files.read("/etc/kubernetes/pki/ca.crt")
            seen.add((authority is not None, etcd))
            assert failed(await place.init()) == [], text
            assert place.ready() == {"te1": True}, text
            if etcd:  # its data belongs to the first authority
                assert machine.files.read("/etc/kubernetes/pki/ca.crt") == authority, text
            await place.session("te1").do(Command(("kubeadm", "reset", "-f")))
        assert seen == {(False, False), (True, False), (True, True)}, "killed before, between and after"


async def test_a_reboot_keeps_what_lasts_and_the_node_comes_back(place: Place) -> None:
    await _bootstrapped(place)
    place.lab.reboot("te2")
    for _ in range(500):
        await asyncio.sleep(0.02)
        if place.machine("te2").reachable and place.ready().get("te2"):
            break
    assert place.ready() == {"te1": True, "te2": True}
    assert place.machine("te2").kernel.swaps == []
    assert outcomes(await place.prepare("te2", allow=Impact.NOTHING)) == {"ok"}


async def test_the_api_fails_as_often_as_asked_and_answers_again(place: Place) -> None:
    await _bootstrapped(place)
    place.lab.fail(Spec.parse("api,status,status=503,path=/api/v1/nodes,times=2"))
    kube = await Kube.connect(place.session("te1"), place.cluster)
    try:
        for _ in range(2):
            with pytest.raises(ApiUnavailable):
                await kube.list_("v1", "Node")
            kube.forget()
        assert {node["metadata"]["name"] for node in await kube.list_("v1", "Node")} == {"te1", "te2"}
    finally:
        await kube.close()
    with pytest.raises(ValueError, match="known: status, drop, delay"):
        place.lab.fail(Spec.parse("api,nosuch"))


async def test_a_host_tells_which_servers_its_kubeconfigs_name_and_nothing_else_of_them(place: Place) -> None:
    place.machine("te2").files.write(KUBELET_CONF, b"- cluster:\n    server: https://api.x:6443\n  token: abc\n")
    said = await place.session("te2").read(SERVERS)
    assert (said.stdout, find_asking(said.stdout, ["api.x"])) == (
        f"{KUBELET_CONF}:server: https://api.x:6443\n",
        [KUBELET_CONF],
    )


async def test_a_locked_dpkg_is_waited_for_and_then_named(place: Place) -> None:
    place.lab.drift("te1", "locked", {})
    with pytest.raises(ShipwayError, match=r"lock"):
        await place.session("te1").succeed("apt", ("apt-get", "-y", "install", "jq"), seconds=60)
    place.lab.drift("te1", "unlocked", {})
    await place.session("te1").do(Command(("apt-get", "update")), Command(("apt-get", "-y", "install", "jq")))
    said = await place.session("te1").read(Says(("apt-mark", "showhold")))
    assert said.ok


async def test_the_admin_kubeconfig_goes_to_the_home_and_group_that_the_host_knows(place: Place) -> None:
    machine, host, step = place.machine("te1"), place.session("te1"), UserHasKubeconfig("ops")
    with pytest.raises(Blocked):
        await step.check(host)
    machine.files.write(ADMIN, b"secret", mode=0o600)
    machine.files.write("/etc/passwd", b"root:x:0:0:root:/root:/bin/bash\nops:x:1000:27::/net/homes/ops:/bin/sh\n")
    machine.files.make_directory("/net/homes/ops")
    (result,) = await place.run([step], "te1")
    assert result.outcome == "changed", result
    node = machine.files.node("/net/homes/ops/.kube/config")
    assert node is not None
    assert (node.mode, node.owner) == (0o600, "ops:sudo")
    machine.files.write("/etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n")
    (result,) = await place.run([step], "te1")
    assert result.outcome == "failed"
    assert "knows no user ops with a home" in str(result.error)
