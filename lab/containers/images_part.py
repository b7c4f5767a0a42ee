"""The bundle's container images, under their upstream names less the registry's host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lab.containers.commands import run
from lab.containers.debian import Apt, unpack
from lab.containers.kubernetes import Kubernetes
from lab.containers.places import ASSETS
from lab.containers.registry import Image, Registry

RECIPE = "3"
CODENAME = "bookworm"
TOOLS = ("busybox-static", "docker-registry", "etcd-server", "etcd-client", "containernetworking-plugins")
PROXY_TOOLS = ("iptables", "conntrack", "ipset")  # what kube-proxy calls
PROXY_LINKS = {
    f"/usr/sbin/{family}tables{action}": "xtables-nft-multi"
    for family in ("ip", "ip6")
    for action in ("", "-save", "-restore")
}
PAUSE_TAGS = ("3.6", "3.8", "3.10")  # the defaults of containerd 1.6, 1.7 and 2.1, beside what kubeadm asks for
PLUGIN = "nvidia/k8s-device-plugin"
SAMPLE = "nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"
NVIDIA_ENV = (
    *Image(names=(), files={}).env,
    "NVIDIA_VISIBLE_DEVICES=all",
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
)


def download_tools(apt_folder: Path, into: Path) -> None:
    """Fetch and unpack the Debian packages that images and mirror are made of: tools/, proxy/ and etcd/."""
    apt = Apt(apt_folder / "images", CODENAME)
    apt.update()
    apt.download_only(TOOLS, into / "debs")
    unpack(sorted((into / "debs").glob("*.deb")), into / "tools")
    apt.download(PROXY_TOOLS, into / "proxy-debs")
    unpack(sorted((into / "proxy-debs").glob("*.deb")), into / "proxy")
    apt.download_only(("libc6",), into / "libc-debs")
    unpack(sorted((into / "libc-debs").glob("*.deb")), into / "libc")
    for root in ("proxy", "libc"):
        for extra in ("usr/share", "var", "etc/init.d"):
            shutil.rmtree(into / root / extra, ignore_errors=True)
    for debs in ("debs", "proxy-debs", "libc-debs"):
        shutil.rmtree(into / debs)


def _busybox_links(busybox: Path) -> dict[str, str]:
    """Return a link in /bin for every applet."""
    return {f"/bin/{name}": "busybox" for name in run(busybox, "--list").split() if name != "busybox"}


def images(kubernetes: Kubernetes, programs: Path, stand_ins: Path, tools: Path) -> list[Image]:
    """Return all images of the lab."""
    busybox = tools / "tools" / "bin" / "busybox"
    shell = {"/bin/busybox": busybox}
    links = _busybox_links(busybox)
    room = ("/tmp", "/etc", "/var", "/run")  # noqa: S108 - folders of the image
    brought = programs / "etcd"  # a current API server asks for flags that Debian's etcd does not know
    etcds = programs if brought.is_file() else tools / "tools" / "usr" / "bin"
    own = [name for name in ("etcd", "etcdctl", "etcdutl") if (etcds / name).is_file()]
    control = [
        Image(names=(f"{name}:v{kubernetes.version}",), files={f"/usr/local/bin/{name}": programs / name})
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    ]
    return [
        *control,
        Image(
            names=(f"kube-proxy:v{kubernetes.version}",),
            files={"/": tools / "proxy", "/usr/local/bin/kube-proxy": programs / "kube-proxy"},
            links=PROXY_LINKS,
            folders=room,
            command=("/usr/local/bin/kube-proxy",),
        ),
        Image(
            names=kubernetes.image_names("etcd", programs),
            files={"/": tools / "libc", **{f"/usr/local/bin/{name}": etcds / name for name in own}},
            folders=room,
        ),
        Image(
            names=kubernetes.image_names("coredns", programs),
            files={"/coredns": stand_ins / "coredns"},
            entrypoint=("/coredns",),
        ),
        Image(
            names=tuple(
                dict.fromkeys((*kubernetes.image_names("pause", programs), *(f"pause:{tag}" for tag in PAUSE_TAGS)))
            ),
            files={"/pause": stand_ins / "pause"},
            entrypoint=("/pause",),
        ),
        Image(names=("library/busybox:1",), files=shell, links=links, folders=room, command=("sh",)),
        Image(
            names=("library/lab-cni:1", "lab-cni:1"),
            files={**shell, "/bin/kubectl": programs / "kubectl", "/agent": ASSETS / "images" / "lab-cni-agent"},
            links=links,
            folders=room,
            command=("/agent",),
        ),
        Image(
            names=(f"{PLUGIN}:{kubernetes.device_plugin}",),
            files={
                "/usr/bin/nvidia-device-plugin": stand_ins / "nvidia-device-plugin",
                "/usr/bin/mps-control-daemon": stand_ins / "nvidia-device-plugin",
            },
            folders=room,
            entrypoint=("nvidia-device-plugin",),
            env=NVIDIA_ENV,
        ),
        Image(
            names=(SAMPLE,),
            files={**shell, "/cuda-samples/vectorAdd": ASSETS / "images" / "vectoradd"},
            links=links,
            folders=(*room, "/usr", "/usr/bin"),
            command=("/cuda-samples/vectorAdd",),
            env=NVIDIA_ENV,
        ),
    ]


def build_registry(into: Path, *, kubernetes: Kubernetes, programs: Path, stand_ins: Path, tools: Path) -> None:
    """Write all images into a registry's folder, and images.json with their digests; 20 s."""
    registry = Registry(into)
    digests = {image.names: registry.add(image) for image in images(kubernetes, programs, stand_ins, tools)}
    flat = {name: digest for names, digest in digests.items() for name in names}
    (into / "images.json").write_text(json.dumps(flat, indent=2) + "\n")


def build_mirror_tools(into: Path, *, tools: Path) -> None:
    """Put together what the mirror runs: busybox for apt over http, docker-registry for images."""
    for source in (tools / "tools" / "bin" / "busybox", tools / "tools" / "usr" / "bin" / "docker-registry"):
        shutil.copy(source, into)
    for name in ("registry.yml", "serve", "names"):
        shutil.copy(ASSETS / "mirror" / name, into)
