"""A broken link between a GPU and its pods is named; the default runtime proves every GPU as well."""

from __future__ import annotations

import asyncio

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import load_cluster
from shipway.gpu.proof import Proof, prove
from shipway.gpu.seen import HostGpuFacts
from shipway.host.ssh import Pool
from shipway.kube.client import Kube
from tests.lab.conftest import Site
from tests.lab.drifting import passed

pytestmark = pytest.mark.lab


async def proved(cluster: Cluster, seen: dict[str, HostGpuFacts]) -> Proof:
    """Return what the proof alone says; it repairs nothing."""
    pool = Pool()
    try:
        kube = await Kube.connect(pool.host(cluster.target(cluster.host("cp1"))), cluster)
        proof = await prove(kube, cluster, {"w1": 2, "w2": 2}, seen)
        await kube.close()
    finally:
        await pool.close()
    return proof


def test_a_host_without_the_nvidia_handler_is_diagnosed_with_the_missing_link(drifting: Site) -> None:
    """Another owner takes the handler away: the proof names the broken link, and a pass of drift repair mends it."""
    gpu = {"mode": "runtime_class", "compute": "off", "verify_seconds": 25}
    cluster = load_cluster(drifting.cluster_file(gpu=gpu))
    renamed = "sed -i 's/runtimes[.]nvidia/runtimes.renamed/' /etc/containerd/config.toml"
    drifting.on("w2", f"{renamed} && systemctl restart containerd")
    of_w2 = "-l name=nvidia-device-plugin-ds --field-selector spec.nodeName=w2"
    drifting.kubectl(f"-n kube-system delete pod {of_w2}")
    seen = HostGpuFacts(pci=2, driver=2, toolkit=True, handler=False)
    proof = asyncio.run(proved(cluster, {"w2": seen}))
    assert proof.outcome == "failed"
    assert proof.link is not None
    assert proof.link.name == "runtime"
    assert "w2" in proof.link.why
    assert any(finding.action == "repaired" for finding in passed(drifting, "service").findings)


def test_the_default_runtime_mode_proves_every_gpu(drifting: Site) -> None:
    """The cluster file of a running cluster changes its mode, and the next run carries it over."""
    drifting.cluster_file(gpu={"mode": "default_runtime", "compute": "off"})
    ran = drifting.run()
    assert ran.code == 0
    assert ran.report["gpus"]["verified"] == 4
    assert "runtimeClassName" not in drifting.kubectl("-n kube-system get ds nvidia-device-plugin-daemonset -o yaml")
