"""The driver of Debian's own archive on the lab's hosts, from the REAL packages: a bootstrap, and a wave.

The packages are fetched from Debian's archive by this machine and offered by each host to itself. Of a host everything
is real but: its GPUs and nvidia-smi are the lab's, and `uname -r` says the kernel of Debian's that is installed on it.
The machine's kernel runs and takes no such module: so both end where it is loaded, and that is what is looked at.
"""

from __future__ import annotations

import os

import pytest

from lab.containers.commands import run as do
from lab.containers.debian import Apt
from lab.containers.host_image import CODENAME
from lab.containers.lab import Lab
from tests.lab.conftest import Ran, Site
from tests.lab.test_upgrade import nodes, rows, run

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
PARTS = ("main", "contrib", "non-free", "non-free-firmware")
KERNEL = ("linux-image-amd64", "linux-headers-amd64", "dkms")
DRIVER = (
    *("nvidia-kernel-dkms", "firmware-nvidia-gsp", "libcuda1", "libnvidia-nvvm4", "libnvidia-cfg1"),
    *("nvidia-smi", "nvidia-persistenced"),
)
# The kernel's folder is also found under the name of the one that runs: modprobe asks the system call for that.
PREPARE = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
mkdir -p /opt/driver-debs
tar -x -C /opt/driver-debs
echo 'deb [trusted=yes] file:/opt/driver-debs ./' > /etc/apt/sources.list.d/lab.list
apt-get -q update > /dev/null
apt-get -q -y --no-install-recommends install linux-image-amd64 > /dev/null
running=$(/usr/bin/uname -r)
kernel=$(cd /lib/modules; ls -d 6.*-amd64)
printf '#!/bin/sh\n[ "$*" != -r ] || { echo %s; exit; }\nexec /usr/bin/uname "$@"\n' "$kernel" \
  > /usr/local/bin/uname
chmod 755 /usr/local/bin/uname
[ "$running" = "$kernel" ] || ln -s "$kernel" "/lib/modules/$running"
"""
OF_DRIVER = (
    "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' '*nvidia*' 'libcuda*' | grep '^[ih]i' || true"
)


@pytest.fixture(scope="module")
def debs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the packages that a bare host lacks for the driver, as an archive with its index."""
    folder = tmp_path_factory.mktemp("driver")
    status = folder / "dpkg-status"
    status.write_text(lab.exec("w1", "cat", "/var/lib/dpkg/status"))
    apt, into = Apt(folder / "apt", CODENAME, status=status, components=PARTS), folder / "debs"
    apt.update()
    apt.download((*KERNEL, *DRIVER), into)
    (into / "Packages").write_text(do("apt-ftparchive", "packages", ".", cwd=into) + "\n")
    do("tar", "--create", "--file", folder / "debs.tar", "--directory", into, ".")
    return (folder / "debs.tar").read_bytes()


def declare(site: Site, debs: bytes, *names: str, driver: bool) -> None:
    """Write a file of these hosts, with the driver whose branch the archive has."""
    hosts = [
        {"name": host.name, "address": host.address, "roles": [host.role], "gpus": host.gpus}
        for host in site.lab.plan.hosts
        if host.name in names
    ]
    gpu = {"compute": "off", **({"driver": {"source": "debian", "branch": branch(debs)}} if driver else {})}
    site.cluster_file(hosts=hosts, gpu=gpu, upgrade={"soak_seconds": 2})


def branch(debs: bytes) -> int:
    """Return the branch of the driver that was fetched."""
    at = debs.index(b"nvidia-kernel-dkms_")
    return int(debs[at:].split(b"_", 2)[1].split(b".", 1)[0])


def prepare(site: Site, name: str, debs: bytes) -> None:
    """Offer a host the packages, and give it a kernel of Debian's."""
    if os.uname().release.endswith("-amd64"):
        pytest.skip("this machine may take a module of Debian's: it would be loaded")
    site.lab.exec(name, "sh", "-c", PREPARE, give=debs, seconds=600)


def the_error(ran: Ran, host: str) -> str:
    """Return what the one error says that is about a host's loading, with its next step."""
    (error,) = (one for one in ran.report["errors"] if one["host"] == host and one["code"] == "SHW-691")
    assert "modprobe: ERROR: could not insert 'nvidia" in error["cause"]
    assert "dkms status" in error["fix"]
    return str(error["cause"])


def test_a_bootstrap_brings_the_whole_driver_and_ends_with_one_error_where_there_is_no_gpu(
    site: Site, debs: bytes
) -> None:
    prepare(site, "w1", debs)
    declare(site, debs, "cp1", "w1", driver=True)
    ran = site.run(seconds=2400)
    assert (ran.code, [error["host"] for error in ran.report["errors"]]) == (2, ["w1"])
    print(the_error(ran, "w1"))
    have = site.on("w1", OF_DRIVER).splitlines()
    assert {"nvidia-kernel-dkms", "libcuda1", "nvidia-persistenced"} <= {line.split()[1] for line in have}
    assert all(line.startswith("hi ") for line in have if line.split()[1] in DRIVER), "held"
    assert "installed" in site.on("w1", "dkms status")
    assert set(nodes(site)) == {"cp1"}, "it has not joined"
    again = site.run(seconds=900)
    assert (again.code, [one for one in rows(again, "changed") if one[0] == "w1" and "driver" in one[1]]) == (2, [])
    the_error(again, "w1")


def test_a_wave_ends_the_same_way_with_the_node_told_closed_and_the_rest_untouched(site: Site, debs: bytes) -> None:
    declare(site, debs, "cp1", "w2", driver=False)
    ran = site.run()
    assert ran.code == 0, ran.output
    undeclared = run(site, "maintain", "--driver")
    assert (undeclared.code, [error["code"] for error in undeclared.report["errors"]]) == (1, ["SHW-694"])
    prepare(site, "w2", debs)
    before = {name: site.on(name, "dpkg-query -W") for name in ("cp1", "w2")}
    declare(site, debs, "cp1", "w2", driver=True)
    plan = run(site, "maintain", "--driver", "--plan")
    assert (plan.code, [row["host"] for row in plan.report["order"]]) == (0, ["w2"])
    assert {name: site.on(name, "dpkg-query -W") for name in before} == before
    wave = run(site, "maintain", "--driver", seconds=2400)
    assert wave.code == 2, wave.output
    the_error(wave, "w2")
    codes = {error["code"] for error in wave.report["errors"]}
    assert {"SHW-691", "SHW-796"} <= codes <= {"SHW-691", "SHW-796", "SHW-797"}, "its node is told closed"
    assert {name: is_open for name, (_, is_open) in nodes(site).items()} == {"cp1": True, "w2": False}
    assert site.on("cp1", "dpkg-query -W") == before["cp1"]
