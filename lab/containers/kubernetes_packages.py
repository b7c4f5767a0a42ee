"""The apt packages that upstream offers for a version of Kubernetes, around its programs."""

from __future__ import annotations

from pathlib import Path

from lab.containers.deb_builder import Deb
from lab.containers.kubernetes import Kubernetes
from lab.containers.places import ASSETS
from lab.simulated.releases import packages, since

# Dependencies of 1.20.2 as in upstream's repository of that time, with the versions that it asks for.
_OLD = {
    "kubelet": (
        "iptables (>= 1.4.21), kubernetes-cni (>= 0.8.7), "
        "iproute2, socat, util-linux, mount, ebtables, ethtool, conntrack"
    ),
    "kubeadm": "kubelet (>= 1.13.0), kubectl (>= 1.13.0), kubernetes-cni (>= 0.8.7), cri-tools (>= 1.13.0)",
    "cri-tools": "1.20.0-00",
}
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
RELOAD_ONLY = """#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
"""
OLD_DROP_IN = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"
NEW_DROP_IN = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"
_COMMUNITY = 24  # from here on packages are of the shape of pkgs.k8s.io, which leaves enabling to the administrator


def kubernetes_debs(kubernetes: Kubernetes, programs: Path, stand_ins: Path, cni_plugins: Path) -> list[Deb]:
    """Return kubelet, kubeadm, kubectl, cri-tools (the stand-in) and kubernetes-cni (Debian's plugins)."""
    plugins = {f"/opt/cni/bin/{path.name}": path for path in sorted(cni_plugins.iterdir()) if path.is_file()}
    old = kubernetes.minor < _COMMUNITY
    shape = packages(kubernetes.minor)
    said = {name: ", ".join(value) if isinstance(value, list) else value for name, value in shape.items()}
    said |= {**(_OLD if old else {}), **kubernetes.packages}
    version = f"{kubernetes.version}-{said['revision']}"
    drop_in = OLD_DROP_IN if old else NEW_DROP_IN
    keeps = {"/etc/kubernetes/manifests/.kubelet-keep": ""} if since(kubernetes.minor, "keeps_manifests") else {}

    def needs(name: str) -> dict[str, str]:
        return {"Depends": said[name]} if said[name] else {}

    return [
        Deb(
            name="kubelet",
            version=version,
            summary="Kubernetes node agent (lab build)",
            files={
                "/usr/bin/kubelet": programs / "kubelet",
                "/lib/systemd/system/kubelet.service": ASSETS / "kubernetes" / "kubelet.service",
            },
            texts=keeps,
            fields=needs("kubelet"),
            scripts={"postinst": KUBELET_POSTINST if old else RELOAD_ONLY},
        ),
        Deb(
            name="kubeadm",
            version=version,
            summary="Kubernetes cluster bootstrap tool (lab build)",
            files={"/usr/bin/kubeadm": programs / "kubeadm", drop_in: ASSETS / "kubernetes" / "10-kubeadm.conf"},
            fields=needs("kubeadm"),
            scripts={"postinst": KUBEADM_POSTINST if old else RELOAD_ONLY},
            conffiles=(drop_in,) if old else (),
        ),
        Deb(
            name="kubectl",
            version=version,
            summary="Kubernetes command line (lab build)",
            files={"/usr/bin/kubectl": programs / "kubectl"},
        ),
        Deb(
            name="cri-tools",
            version=said["cri-tools"],
            summary="crictl, a stand-in by the lab",
            files={"/usr/bin/crictl": stand_ins / "crictl"},
        ),
        Deb(
            name="kubernetes-cni",
            version=said["kubernetes-cni"],
            summary="Container network plugins, Debian's build",
            files=plugins,
        ),
    ]
