"""The apt packages that upstream offers for Kubernetes 1.20, around the programs built here."""

from __future__ import annotations

from pathlib import Path

from lab.containers.deb_builder import Deb
from lab.containers.places import ASSETS
from lab.containers.programs import VERSION

# Names, versions and dependencies as in upstream's repository of that time.
DEB_VERSION = f"{VERSION}-00"
TOOLS_VERSION = "1.20.0-00"
CNI_VERSION = "0.8.7-00"
KUBELET_NEEDS = (
    "iptables (>= 1.4.21), kubernetes-cni (>= 0.8.7), iproute2, socat, util-linux, mount, ebtables, ethtool, conntrack"
)
KUBEADM_NEEDS = "kubelet (>= 1.13.0), kubectl (>= 1.13.0), kubernetes-cni (>= 0.8.7), cri-tools (>= 1.13.0)"
KUBELET_POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable kubelet.service
    systemctl restart --no-block kubelet.service
fi
"""
KUBEADM_POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart --no-block kubelet.service
fi
"""
DROP_IN = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"


def kubernetes_debs(programs: Path, stand_ins: Path, cni_plugins: Path) -> list[Deb]:
    """Give kubelet, kubeadm, kubectl, cri-tools (the stand-in) and kubernetes-cni (Debian's plugins)."""
    plugins = {f"/opt/cni/bin/{path.name}": path for path in sorted(cni_plugins.iterdir()) if path.is_file()}
    return [
        Deb(
            name="kubelet",
            version=DEB_VERSION,
            summary="Kubernetes node agent (lab build)",
            files={
                "/usr/bin/kubelet": programs / "kubelet",
                "/lib/systemd/system/kubelet.service": ASSETS / "kubernetes" / "kubelet.service",
            },
            fields={"Depends": KUBELET_NEEDS},
            scripts={"postinst": KUBELET_POSTINST},
        ),
        Deb(
            name="kubeadm",
            version=DEB_VERSION,
            summary="Kubernetes cluster bootstrap tool (lab build)",
            files={"/usr/bin/kubeadm": programs / "kubeadm", DROP_IN: ASSETS / "kubernetes" / "10-kubeadm.conf"},
            fields={"Depends": KUBEADM_NEEDS},
            scripts={"postinst": KUBEADM_POSTINST},
            conffiles=(DROP_IN,),
        ),
        Deb(
            name="kubectl",
            version=DEB_VERSION,
            summary="Kubernetes command line (lab build)",
            files={"/usr/bin/kubectl": programs / "kubectl"},
        ),
        Deb(
            name="cri-tools",
            version=TOOLS_VERSION,
            summary="crictl, a stand-in by the lab",
            files={"/usr/bin/crictl": stand_ins / "crictl"},
        ),
        Deb(
            name="kubernetes-cni",
            version=CNI_VERSION,
            summary="Container network plugins, Debian's build",
            files=plugins,
        ),
    ]
