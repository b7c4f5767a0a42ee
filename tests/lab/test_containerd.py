"""Every containerd that Debian ships is configured right: the real daemon runs it, and its own dump shows it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import yaml

from lab.containers.cluster_file import content
from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.converge import converge
from shipway.host.ssh import Pool
from shipway.step import Impact
from tasks.stages import container_runtime, nvidia_runtime, prepare_system
from tests.lab.conftest import Site
from tests.places.facts import DEBIAN

pytestmark = pytest.mark.lab
LAYOUT = {"1.6": 2, "1.7": 2, "2.1": 3}


def _cluster(site: Site, version: str, mode: str) -> Cluster:
    data = content(site.lab.plan, site.lab.state, gpu={"mode": mode, "compute": "off"})
    uri = data["sources"]["apt"]["docker"]["uri"]
    data["sources"]["apt"]["docker"]["uri"] = uri.rsplit("-", 1)[0] + f"-{version}"
    data["hosts"] = [host for host in data["hosts"] if host["name"] != "w2"]
    return parse_cluster(yaml.safe_dump(data))


@pytest.mark.parametrize("mode", ["runtime_class", "default_runtime"])
@pytest.mark.parametrize("version", ["1.6", "1.7", "2.1"])
async def test_containerd_is_configured_and_running_what_it_was_given(site: Site, version: str, mode: str) -> None:
    site.fresh("w1")
    cluster = _cluster(site, version, mode)
    spec = cluster.host("w1")
    pool = Pool()
    try:
        host = pool.host(cluster.target(spec))
        for stage in (prepare_system, container_runtime, nvidia_runtime):
            results = await converge(stage.steps(cluster, spec, DEBIAN), host, Impact.WORKLOADS)
            assert all(one.outcome in ("ok", "changed") for one in results), [str(one.error) for one in results]
            host.forget()
            again = await converge(stage.steps(cluster, spec, DEBIAN), host, Impact.NOTHING)
            assert [one.outcome for one in again] == ["ok"] * len(again), again
    finally:
        await pool.close()
    dump = tomllib.loads(site.on("w1", "containerd config dump"))
    assert site.on("w1", "containerd --version").split()[2].lstrip("v").startswith(version)
    assert dump["version"] == LAYOUT[version]
    name = "io.containerd.grpc.v1.cri" if dump["version"] == 2 else "io.containerd.cri.v1.runtime"
    cri: dict[str, Any] = dump["plugins"][name]["containerd"]
    assert cri["runtimes"]["runc"]["options"]["SystemdCgroup"] is True
    assert cri["runtimes"]["nvidia"]["options"]["SystemdCgroup"] is True
    assert cri["runtimes"]["nvidia"]["options"]["BinaryName"] == "/usr/bin/nvidia-container-runtime"
    assert cri["default_runtime_name"] == ("nvidia" if mode == "default_runtime" else "runc")
    assert site.on("w1", "systemctl is-active containerd").strip() == "active"
