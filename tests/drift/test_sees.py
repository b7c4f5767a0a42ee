"""What a pass sees on SIMULATED hosts after a bootstrap: nothing where nothing drifted, and each thing that did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.simulated.drifts import drift
from lab.simulated.options import Options
from shipway.converge import converge
from shipway.kube.client import Kube
from shipway.step import Impact
from tasks.context import Run
from tasks.drift.look import look_at_host
from tasks.drift.parts import _kubeadms
from tests.places.simulated import Place, failed, simulated_place

CONTAINERD = "/etc/containerd/config.toml"
KUBELET = "/var/lib/kubelet/config.yaml"
EARLY = "no earlier line of /etc/hosts names our hosts otherwise"
LOADED = ("containerd runs its current configuration", "kubelet runs its current configuration")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with simulated_place(tmp_path, Options(hosts=2, scale=0.0, noisy=False)) as one:
        assert failed(await one.prepare("te1", "te2")) == []
        assert failed(await one.init()) == []
        assert failed(await one.join("te2")) == []
        # No device plugin runs here, for which isolation waits: see tests/gpu/test_isolation.py.
        one.cluster = one.cluster.model_copy(update={"gpu": one.cluster.gpu.model_copy(update={"isolation": "off"})})
        yield one


async def looked(place: Place, host: str) -> dict[str, str]:
    """Return what a pass finds on a host, by step."""
    run = Run(place.cluster, "drift")
    try:
        await look_at_host(run, "look", host)
        assert run.session(host).round_trips <= 3
        return {finding.step: finding.have for finding in run.drift.findings[host]}
    finally:
        await run.close()


async def test_each_thing_that_was_changed_is_found_and_nothing_else(place: Place) -> None:
    for host in ("te1", "te2"):
        assert await looked(place, host) == {}
    te1, te2 = place.machine("te1"), place.machine("te2")
    drift(te2, "edit", {"path": "/etc/default/kubelet", "add": 'KUBELET_EXTRA_ARGS="--max-pods=500"\n'})
    found = await looked(place, "te2")
    assert list(found) == ["the kubelet runs with kubeadm's flags alone"]
    assert "--max-pods=500 from /etc/default/kubelet" in found["the kubelet runs with kubeadm's flags alone"]
    drift(te2, "remove", {"path": "/etc/default/kubelet"})

    te2.files.write("/etc/systemd/system/containerd.service.d/x.conf", b"[Service]\nExecStart=\n" + OTHER)
    te2.units.reload()
    for verb in (te2.units.stop, te2.units.start):
        unit = te2.units.get("containerd")
        assert unit is not None
        verb(unit)
    assert (await looked(place, "te2"))[f"containerd runs with {CONTAINERD}"] == "started with /etc/other.toml"
    drift(te2, "remove", {"path": "/etc/systemd/system/containerd.service.d/x.conf"})

    drift(te1, "edit", {"path": "/etc/hosts", "old": "127.0.0.1", "new": "10.0.0.9 te2\n127.0.0.1"})
    assert (await looked(place, "te1"))[EARLY] == "line 1: 10.0.0.9 te2"
    drift(te1, "edit", {"path": "/etc/hosts", "old": "10.0.0.9 te2\n", "new": ""})

    drift(te1, "edit", {"path": "/run/systemd/resolve/stub-resolv.conf", "old": "nameserver", "new": "#"})
    assert "/etc/resolv.conf names a name server" in await looked(place, "te1")
    drift(te1, "edit", {"path": "/run/systemd/resolve/stub-resolv.conf", "old": "#", "new": "nameserver"})

    api = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    drift(te1, "edit", {"path": api, "old": "authorization-mode=Node,RBAC", "new": "authorization-mode=AlwaysAllow"})
    flags = (await looked(place, "te1"))["the control plane's static pods have kubeadm's flags"]
    assert flags == "kube-apiserver: --authorization-mode=AlwaysAllow instead of Node,RBAC"

    te1.files.write("/etc/apt/sources.list.d/foreign.list", twice(te1.files.text(SOURCE)))
    assert "Conflicting values set for option Signed-By" in (await looked(place, "te1"))["apt can read its sources"]

    drift(te2, "remove", {"path": "/var/lib/kubelet/pki/kubelet-client-current.pem"})
    assert any("kubelet-client-current.pem" in have for have in (await looked(place, "te2")).values())


OTHER = b"ExecStart=/usr/bin/containerd --config /etc/other.toml\n"
SOURCE = "/etc/apt/sources.list.d/shipway-kubernetes.list"


def twice(text: str) -> bytes:
    """Return a source line once more, with another key."""
    line = next(line for line in text.splitlines() if line.startswith("deb "))
    before, _, after = line.partition("signed-by=")
    return f"{before}signed-by=/etc/apt/keyrings/foreign.gpg{after[after.index(']') :]}\n".encode()


async def test_a_file_of_the_future_restarts_nothing_after_the_host_restarted(place: Place) -> None:
    """A hardware clock in local time (UTC+8) was wrong when a file was written: each pass restarted both services."""
    te2 = place.machine("te2")
    te2.skew = 8 * 3600.0
    drift(te2, "edit", {"path": CONTAINERD, "old": "pause:", "new": "pausing:"})
    assert failed(await place.prepare("te2", allow=Impact.SERVICE)) == []
    te2.skew = 0.0
    place.lab.reboot("te2")
    await converge([], place.session("te2"), Impact.NOTHING)
    for _ in range(600):
        try:
            found = await looked(place, "te2")
            break
        except Exception:  # noqa: BLE001, S112 - it is restarting
            continue
    assert not set(found) & set(LOADED), found


async def test_what_kubeadm_put_into_the_cluster_is_as_it_writes_it_and_written_anew_by_it(place: Place) -> None:
    run = Run(place.cluster, "drift")
    try:
        kube: Kube = await run.kube()
        for step in _kubeadms(run):
            assert await step.check(kube) is None, step.name
        await kube.delete("apps/v1", "DaemonSet", "kube-proxy", "kube-system")
        await kube.delete("v1", "ConfigMap", "coredns", "kube-system")
        kube.forget()
        results = await converge(_kubeadms(run), kube, Impact.SERVICE)
        assert [result.outcome for result in results] == ["changed", "changed", "ok", "ok"], failed(results)
    finally:
        await run.close()
