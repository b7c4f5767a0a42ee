"""GPUs that MIG divides, by CDI: declared on bare hosts and on hosts in service, proven, and changed around a pod.

The GPUs are SIMULATED, and so is mig-parted, in the words of NVIDIA's own; kubelet, scheduler, containerd are real.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.containers.cluster_file import content
from shipway.cluster_file import load_cluster
from shipway.errors import Refused
from shipway.steps.gpu.mig import MARK
from tasks.findings import Finding
from tests.lab.conftest import Ran, Site
from tests.lab.drifting import passed
from tests.lab.test_gpu_sharing import classes_of, container, start_job

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
PARTS = {
    "thirds": {"sharing": "mig-single", "mig": "all-3g.71gb"},  # two parts of each GPU
    "profiles": {"sharing": "mig-mixed", "mig": "all-2g.35gb"},  # three
}
CDI_SINCE = (1, 28)
NAMED = "nvidia.com/mig-2g.35gb"


def declare(site: Site, w1: str | None, w2: str | None) -> None:
    """Write a cluster file with GPUs by CDI and these classes of the hosts."""
    of = {"w1": w1, "w2": w2}
    hosts = [
        {**host, **({"gpu_class": of[host["name"]]} if of.get(host["name"]) else {})}
        for host in content(site.lab.plan, site.lab.state)["hosts"]
    ]
    site.cluster_file(hosts=hosts, gpu={"mode": "cdi", "compute": "off", "classes": PARTS})


def install_mig_manager(site: Site, host: str, hooks: str) -> None:
    """Install the package as an administrator does, whose hooks follow the GPUs: each host has another kind."""
    line = f"deb [signed-by=/etc/apt/keyrings/site.asc] {site.lab.plan.apt_url('nvidia')} ./"
    script = (
        f"echo '{line}' >/etc/apt/sources.list.d/mig.list && apt-get -q update && "
        "DEBIAN_FRONTEND=noninteractive apt-get -y -q install nvidia-mig-manager && "
        "rm /etc/apt/sources.list.d/mig.list && "
        "nvidia-mig-parted generate-config -f /etc/nvidia-mig-manager/config.yaml && "
        f"ln -sfn {hooks} /etc/nvidia-mig-manager/hooks.yaml"
    )
    site.on(host, script)


def left(site: Site, repair: Any) -> dict[tuple[str, str], Finding]:
    """Return what a pass of drift repair told, by host and step."""
    return {(one.host, one.id): one for one in passed(site, repair).findings}


def offered(site: Site, node: str) -> dict[str, str]:
    """Return what of NVIDIA's a node offers."""
    found = json.loads(site.kubectl(f"get node {node} -o json"))["status"]["allocatable"]
    return {name: amount for name, amount in found.items() if name.startswith("nvidia.com/") and amount != "0"}


def proven(ran: Ran, places: int) -> None:
    """Hold that every place was proven, each by a GPU or part of its own."""
    assert ran.code == 0, ran.output
    gpus = ran.report["gpus"]
    assert (gpus["outcome"], gpus["expected"], gpus["verified"]) == ("ok", places, places), gpus
    assert len(set(gpus["devices"])) == places, gpus["devices"]


@pytest.fixture(scope="module")
def divided(site: Site) -> Site | None:
    """Bare hosts with NVIDIA's MIG manager; None where this Kubernetes hands no GPUs out by CDI."""
    site.cluster_file()
    if load_cluster(site.folder / "cluster.yaml").kubernetes.minor < CDI_SINCE:
        return None
    install_mig_manager(site, "w1", "hooks-default.yaml")  # those before Hopper: the kubelet is stopped meanwhile
    install_mig_manager(site, "w2", "hooks-minimal.yaml")
    return site


def refused_before_cdi(site: Site) -> None:
    """Hold that the cluster file is refused where the lab's Kubernetes knows no CDI."""
    declare(site, "thirds", "profiles")
    with pytest.raises(Refused, match="hands no CDI devices to containerd"):
        load_cluster(site.folder / "cluster.yaml")


def test_bare_hosts_are_divided_and_every_part_is_proven(divided: Site | None, site: Site) -> None:
    if divided is None:
        return refused_before_cdi(site)
    declare(site, "thirds", "profiles")
    ran = site.run(seconds=560)
    proven(ran, 2 * 2 + 2 * 3)
    assert all(device.startswith("MIG-") for device in ran.report["gpus"]["devices"])
    assert ran.report["gpus"]["shared"] == {
        "w1": "w1: its 2 GPUs are offered as 4 places by MIG",
        "w2": "w2: its 2 GPUs are offered as 6 places by MIG",
    }
    assert offered(site, "w1") == {"nvidia.com/gpu": "4"}
    assert offered(site, "w2") == {NAMED: "6"}
    assert {key: one for key, one in left(site, "none").items() if one.action != "ok"} == {}
    again = site.run()
    assert [host["steps"]["changed"] for host in again.report["hosts"]] == [0, 0, 0], again.output
    return None


def test_hosts_in_service_change_how_they_are_divided_around_a_pod_that_holds_a_part(
    divided: Site | None, site: Site
) -> None:
    if divided is None:
        return refused_before_cdi(site)
    before = start_job(site, "nvidia.com/gpu")
    listed = site.kubectl("exec job -- nvidia-smi -L")
    assert [line.split()[0] for line in listed.splitlines()] == ["GPU", "MIG"], listed
    declare(site, "profiles", "thirds")
    held = site.run(seconds=560)
    assert held.code == 2, held.output
    assert "it is not so yet that the GPUs are divided as all-2g.35gb; GPUs are held by w1: default/job" in held.output
    assert "it is not so yet that the GPUs are divided as all-3g.71gb" in held.output
    assert (held.report["gpus"]["expected"], held.report["gpus"]["verified"]) == (10, 9), held.report["gpus"]
    assert classes_of(site) == ["thirds", "profiles"]
    told = left(site, "service")
    assert [told[host, "GpusDivided"].action for host in ("w1", "w2")] == ["reported", "reported"], told
    assert "--repair workloads" in told["w2", "GpusDivided"].command
    told = left(site, "workloads")  # w1 is not drained, for nobody would make its pod anew
    assert told["w2", "GpusDivided"].action == "repaired", told
    assert told["w1", "GpusDivided"].action != "repaired", told
    assert classes_of(site) == ["thirds", "thirds"]
    assert offered(site, "w2") == {"nvidia.com/gpu": "4"}
    assert container(site) == before
    site.kubectl("delete pod job")
    told = left(site, "workloads")
    assert told["w1", "GpusDivided"].action == "repaired", told
    assert classes_of(site) == ["profiles", "thirds"]
    proven(site.run(seconds=560), 2 * 3 + 2 * 2)
    assert offered(site, "w1") == {NAMED: "6"}
    return None


def test_gpus_that_shipway_divided_are_whole_again_and_divided_anew_on_a_host_in_service(
    divided: Site | None, site: Site
) -> None:
    if divided is None:
        return refused_before_cdi(site)
    declare(site, None, "profiles")
    told = left(site, "workloads")
    assert (told["w1", "GpusWhole"].action, told["w2", "GpusDivided"].action) == ("repaired", "repaired"), told
    proven(site.run(seconds=560), 2 + 2 * 3)
    assert offered(site, "w1") == {"nvidia.com/gpu": "2"}
    assert "MIG-" not in site.on("w1", "nvidia-smi -L")
    kept = site.on("w1", "cat /etc/systemd/system/nvidia-mig-manager.service.d/override.conf")
    assert 'MIG_PARTED_SELECTED_CONFIG=all-disabled"' in kept, "nor divided at the next boot"
    declare(site, "thirds", None)
    told = left(site, "workloads")
    assert (told["w1", "GpusDivided"].action, told["w2", "GpusWhole"].action) == ("repaired", "repaired"), told
    assert (offered(site, "w1"), offered(site, "w2")) == ({"nvidia.com/gpu": "4"}, {"nvidia.com/gpu": "2"})
    site.cluster_file(gpu={"mode": "cdi", "compute": "off"})
    left(site, "workloads")
    proven(site.run(seconds=560), 4)
    assert not any(site.holds(host, f"[ -e {MARK} ]") for host in ("w1", "w2"))
    assert "shipway.dev/gpu-class" not in site.kubectl("get nodes --show-labels")
    assert site.kubectl("-n kube-system get ds -l shipway.dev/gpu-class -o name").strip() == ""
    assert {key: one for key, one in left(site, "none").items() if one.action != "ok"} == {}
    return None
