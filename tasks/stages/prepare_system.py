"""Stage 1, every host (S1, S2): base packages, names, swap off for good, kernel modules and settings."""

from __future__ import annotations

from functools import partial

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.edits.files import FileEdited, FileIs
from shipway.edits.lines import fstab_without_swap, with_sysctls
from shipway.host.session import Host
from shipway.kubeadm import hardening
from shipway.os.family import Family
from shipway.step import Check
from shipway.steps.system import api_proxy
from shipway.steps.system.base import CloudInitDone, HostnameIs
from shipway.steps.system.kernel import (
    ModulesAtBoot,
    ModulesLoaded,
    NoScriptTurnsSwapOn,
    SwapOff,
    SwapStaysOff,
    SysctlsLive,
)
from shipway.steps.system.names import HostsNamed
from shipway.steps.system.network_manager import InterfacesLeftAlone

MODULES = ("overlay", "br_netfilter", "ip_tables", "iptable_nat", "nf_nat")
BRIDGED = {
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
    "net.ipv4.ip_forward": "1",
}
SETTINGS = ", ".join(f"{key} = {value}" for key, value in BRIDGED.items())
# 128 instances are used up by a device plugin and a few log readers (gpu-operator#441); Kubespray uses 8192.
WATCHES = {"fs.inotify.max_user_instances": "8192", "fs.inotify.max_user_watches": "524288"}
CLOUD_CONFIG = "# The host name and /etc/hosts are kept by Shipway.\npreserve_hostname: true\nmanage_etc_hosts: false\n"


def _settings(values: dict[str, str]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in values.items())


def kernel_steps(cluster: Cluster) -> list[Check[Host]]:
    """Return the steps of the kernel settings that a hardened kubelet wants, before it is started; none without one."""
    wanted = dict(hardening.kernel(cluster))
    if not wanted:
        return []
    return [
        FileIs("the kubelet's kernel settings last", hardening.KERNEL_FILE, _settings(wanted)),
        SysctlsLive(wanted, "the kernel runs with the kubelet's settings", "kubelet"),
    ]


def way_to_api(cluster: Cluster, host: HostSpec, family: Family, named: Cluster | None = None) -> list[Check[Host]]:
    """Return the steps by which a host reaches the API of a cluster, its names of the hosts (of `named`) among them."""
    proxied = "control_plane" not in host.roles and cluster.proxies_api
    names = {other.name: node_ip(other) for other in (named or cluster).hosts}
    planes = tuple(node_ip(plane) for plane in cluster.control_planes)
    address = api_proxy.address_for(cluster, host)
    return [
        *(api_proxy.steps(cluster, family) if proxied else ()),
        HostsNamed(names, cluster.api_name, address, planes, balancer=cluster.balancer),
    ]


def steps(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return the steps of a host, in order."""
    calico: list[Check[Host]] = [InterfacesLeftAlone()] if cluster.network.provider == "calico" else []
    upgrade: list[Check[Host]] = [family.upgraded()] if cluster.system.upgrade else []
    return [
        CloudInitDone(),
        family.proxy(cluster),
        family.in_order(cluster),
        *family.base_repository(cluster),
        *upgrade,
        family.installed(
            "base packages are installed", dict.fromkeys(family.base_packages(cluster)), cluster.system.may_remove
        ),
        FileIs("cloud-init leaves the names alone", "/etc/cloud/cloud.cfg.d/99-shipway.cfg", CLOUD_CONFIG),
        HostnameIs(host.name),
        *way_to_api(cluster, host, family),
        FileEdited("no swap in /etc/fstab", "/etc/fstab", fstab_without_swap, "no swap line", needed=False),
        SwapStaysOff(),
        NoScriptTurnsSwapOn(),
        SwapOff(),
        ModulesAtBoot("/etc/modules-load.d/k8s.conf", MODULES),
        ModulesLoaded(MODULES),
        FileEdited("kernel settings last", "/etc/sysctl.d/k8s.conf", partial(with_sysctls, values=BRIDGED), SETTINGS),
        FileIs("inotify limits last", "/etc/sysctl.d/90-shipway-inotify.conf", _settings(WATCHES)),
        SysctlsLive(BRIDGED | WATCHES),
        *kernel_steps(cluster),
        *calico,
    ]
