"""What the simulated lab knows by version is what real hosts of that version answered, wherever that was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab.simulated import releases
from lab.simulated.options import Options
from tests.conformance.play import load
from tests.conformance.releases import RELEASES, Release
from tests.places.simulated import failed, simulated_place


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_the_images_are_those_that_kubeadm_listed(release: Release) -> None:
    listed = load(release)["kubeadm's images"].stdout.splitlines()
    assert list(releases.images(release.version).values()) == listed


def test_a_row_holds_until_the_next_one() -> None:
    assert releases.packages(31) == releases.packages(24) | {"cri-tools": "1.31.1-1.1"}
    assert releases.packages(40)["kubelet"] == ["kubernetes-cni", "mount", "util-linux"]
    with pytest.raises(KeyError):
        releases.since(36, "nosuch")


# What was listed on a control plane and a worker of 1.36.2, and of 1.20.2.
@pytest.mark.parametrize(
    ("profile", "modes", "flags", "tools"),
    [
        ("lab", {"config.yaml": 0o644, "instance-config.yaml": None}, "--container-runtime=remote", True),
        ("current", {"config.yaml": 0o600, "instance-config.yaml": 0o600}, "--node-ip=", False),
    ],
)
async def test_kubeadm_leaves_the_files_of_its_version(
    tmp_path: Path, profile: str, modes: dict[str, int | None], flags: str, *, tools: bool
) -> None:
    options = Options(hosts=1, scale=0.0, profile=profile, system="debian-12")
    async with simulated_place(tmp_path, options) as place:
        assert failed(await place.prepare("te1")) == []
        machine = place.machine("te1")
        kept = machine.files.names("/etc/kubernetes/manifests")
        assert kept == ([".kubelet-keep"] if profile == "current" else None)
        offers = {offer.name: offer for repo in place.lab.world.repositories for offer in repo.offers}
        assert ("conntrack" in offers["kubelet"].depends) is tools
        assert ("cri-tools" in offers["kubeadm"].depends) is tools
        assert failed(await place.init()) == []
        found = {name: machine.files.node(f"/var/lib/kubelet/{name}") for name in modes}
        assert {name: node.mode if node else None for name, node in found.items()} == modes
        assert f'KUBELET_KUBEADM_ARGS="{flags}' in machine.files.text("/var/lib/kubelet/kubeadm-flags.env")
        config = yaml.safe_load(machine.files.text("/var/lib/kubelet/config.yaml"))
        assert config["authentication"]["x509"] == {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}
        assert machine.files.exists("/etc/kubernetes/super-admin.conf") is (profile == "current")
