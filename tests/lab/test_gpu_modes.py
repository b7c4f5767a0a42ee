"""RuntimeClass and default runtime both prove every card; a broken link is named."""

from __future__ import annotations

import pytest

from shipway.cluster import Cluster
from shipway.gpu_proof import prove
from shipway.gpu_proof_seen import HostGpuFacts
from shipway.kube import Kube
from shipway.ssh import Pool
from tests.lab.conftest import Site

pytestmark = pytest.mark.lab


def test_the_default_runtime_mode_proves_every_card(site: Site) -> None:
    site.cluster_file(gpu={"mode": "default_runtime", "compute": "off"})
    ran = site.run()
    assert ran.code == 0
    assert ran.report["gpus"]["verified"] == 4
    assert "runtimeClassName" not in site.kubectl("-n kube-system get ds nvidia-device-plugin-daemonset -o yaml")


async def test_a_host_without_the_nvidia_handler_is_diagnosed_with_the_missing_link(site: Site) -> None:
    """Another owner takes the handler away; the proof itself repairs nothing, so it must name the broken link."""
    cluster = Cluster.load(site.cluster_file(gpu={"mode": "runtime_class", "compute": "off", "verify_seconds": 60}))
    assert site.run().code == 0
    site.on(
        "w2",
        "sed -i 's/runtimes[.]nvidia/runtimes.renamed/' /etc/containerd/config.toml && systemctl restart containerd",
    )
    site.kubectl("-n kube-system delete pod -l name=nvidia-device-plugin-ds --field-selector spec.nodeName=w2")
    pool = Pool()
    try:
        kube = await Kube.connect(pool.host(cluster.target(cluster.host("cp1"))), cluster)
        seen = HostGpuFacts(pci=2, driver=2, toolkit=True, handler=False)
        proof = await prove(kube, cluster, {"w1": 2, "w2": 2}, {"w2": seen})
        await kube.close()
    finally:
        await pool.close()
    assert proof.outcome == "failed"
    assert proof.link is not None
    assert proof.link.name == "runtime"
    assert "w2" in proof.link.why
    mended = site.run()
    assert mended.code == 0
    assert mended.report["gpus"]["verified"] == 4
