"""The bundle's apt repositories: kubernetes, nvidia, debian, and one of containerd for each of its versions."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.containers.apt_repository import SigningKey, index
from lab.containers.commands import run
from lab.containers.deb_builder import Deb
from lab.containers.debian import Apt, deb, unpack
from lab.containers.kubernetes import Kubernetes
from lab.containers.kubernetes_packages import kubernetes_debs
from lab.containers.nvidia_packages import nvidia_debs

# containerd's minor version and the Debian release that packages it; all run on Debian 12 (libc6 >= 2.34).
CONTAINERD_SUITES = {"1.6": "bookworm", "1.7": "trixie", "2.1": "forky"}
# What a base system gets from its distribution (the source guide's list), and what Kubernetes' packages depend on.
BASE_PACKAGES = (
    *("apt-transport-https", "ca-certificates", "curl", "gnupg", "gpg", "lsb-release", "software-properties-common"),
    *("conntrack", "socat", "ethtool", "ebtables", "ipset", "iptables", "iproute2", "util-linux", "mount", "nftables"),
    *("chrony", "jq", "nfs-common", "open-iscsi", "ipvsadm", "unattended-upgrades", "haproxy", "keepalived"),
)
RECIPE = f"1 {CONTAINERD_SUITES} {BASE_PACKAGES}"
# Docker's package turns the CRI plugin off, which a bootstrap must notice and mend.
DOCKER_CONFIG = """# As Docker's package ships it: the kubelet cannot use containerd until this line is gone.
disabled_plugins = ["cri"]
"""


def download(apt_folder: Path, status: Path, into: Path) -> None:
    """Fetch containerd of each version, runc, and the base packages with all that a bare host lacks for them."""
    host = Apt(apt_folder / "host", "bookworm", status=status)
    host.update()
    host.download(BASE_PACKAGES, into / "debian")
    host.download_only(("runc",), into / "runc")
    for version, suite in CONTAINERD_SUITES.items():
        apt = Apt(apt_folder / suite, suite)
        apt.update()
        apt.download_only(("containerd",), into / f"containerd-{version}")


def _containerd_io(version: str, containerd: Path, runc: Path, work: Path) -> Deb:
    """Return `containerd.io` as Docker's repository has it: containerd and runc in one package."""
    tree = work / "containerd.io-tree"
    shutil.rmtree(tree, ignore_errors=True)
    unpack([containerd, runc], tree)
    shutil.rmtree(tree / "usr" / "share" / "doc", ignore_errors=True)
    upstream = run("dpkg-deb", "--field", containerd, "Version").split("~")[0].split("+")[0]
    return Deb(
        name="containerd.io",
        version=f"{upstream}-1",
        summary=f"containerd {version} and runc, Debian's builds in Docker's shape (lab)",
        tree=tree,
        texts={"/etc/containerd/config.toml": DOCKER_CONFIG},
        fields={
            "Depends": "libc6 (>= 2.34), libseccomp2 (>= 2.5.0)",
            "Provides": "containerd, runc",
            "Conflicts": "containerd, runc",
            "Replaces": "containerd, runc",
        },
        scripts={
            "postinst": "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload;"
            " systemctl enable containerd.service; systemctl restart containerd.service; fi\n",
            "prerm": '#!/bin/sh\nset -e\nif [ "$1" = remove ] && [ -d /run/systemd/system ]; then'
            " systemctl stop containerd.service; fi\n",
        },
        conffiles=("/etc/containerd/config.toml",),
    )


def build_repositories(
    into: Path,
    *,
    kubernetes: Kubernetes,
    programs: Path,
    stand_ins: Path,
    downloads: Path,
    cni_plugins: Path,
    signing: Path,
) -> None:
    """Build the packages and sign one repository a folder; 20 s."""
    work = into / "work"
    work.mkdir()
    for name, built in {
        "kubernetes": kubernetes_debs(kubernetes, programs, stand_ins, cni_plugins),
        "nvidia": nvidia_debs(stand_ins, kubernetes.toolkit),
    }.items():
        (into / name).mkdir()
        for package in built:
            package.build(work, into / name)
    shutil.copytree(downloads / "debian", into / "debian")
    runc = deb(downloads / "runc", "runc")
    for version in CONTAINERD_SUITES:
        folder = into / f"containerd-{version}"
        folder.mkdir()
        containerd = deb(downloads / f"containerd-{version}", "containerd")
        for path in (containerd, runc):
            shutil.copy(path, folder)
        _containerd_io(version, containerd, runc, work).build(work, folder)
    shutil.rmtree(work)
    key = SigningKey(signing)
    for folder in sorted(path for path in into.iterdir() if path.is_dir()):
        index(folder, folder.name, key)
    (into / "fingerprint").write_text(key.fingerprint() + "\n")
    key.close()
