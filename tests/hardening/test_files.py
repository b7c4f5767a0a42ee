"""Files of hardening: root's alone, none opened wider, and no audit log that fills the disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from shipway.converge import converge
from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.kubeadm.hardening import AUDIT_LOGS
from shipway.step import Impact
from shipway.steps.hardening.files import MODES, PLACES, ROOM, AuditRoom, FolderPrivate, ModesNarrow
from tests.places.facts import KnownFacts, said

GIB = 1 << 30


def disk(size: int, used: int, log: str = "") -> KnownFacts:
    lines = f"Filesystem 1-blocks Used Available Capacity Mounted on\n/dev/sda1 {size} {used} 0 1% /var\n"
    return KnownFacts({Says(("sh", "-c", ROOM, AUDIT_LOGS)): said(lines + log)})


async def test_an_audit_log_that_does_not_fit_is_refused_with_both_numbers() -> None:
    assert await AuditRoom(1100).check(disk(100 * GIB, 10 * GIB)) is None
    with pytest.raises(Refused) as caught:
        await AuditRoom(1100).check(disk(100 * GIB, 84 * GIB + GIB // 2))
    assert caught.value.code == "SHW-804"
    assert "1100 MiB, and /var has room for 512 MiB" in caught.value.message
    assert (
        await AuditRoom(1100).check(disk(100 * GIB, 85 * GIB, "written\n")) is None
    )  # it is there: full disks have their own finding
    assert await AuditRoom(1100).check(KnownFacts({Says(("sh", "-c", ROOM, AUDIT_LOGS)): said("", 1)})) is None


def test_the_look_at_the_disk_takes_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    words = ("sh", "-c", ROOM, str(tmp_path / "not" / "there"))
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    assert len(lines) == 2
    assert int(lines[1].split()[1]) > 0


def test_what_is_open_wider_is_found_and_what_is_others_is_not(tmp_path: Path) -> None:
    etc, kubelet, etcd = tmp_path / "kubernetes", tmp_path / "kubelet", tmp_path / "etcd"
    for folder in (etc / "manifests", etc / "pki", kubelet / "pki", etcd):
        folder.mkdir(parents=True)
    modes = {
        etc / "admin.conf": 0o640,
        etc / "kubelet.conf": 0o600,
        etc / "site.txt": 0o666,
        etc / "manifests" / "kube-apiserver.yaml": 0o644,
        etc / "manifests" / "site.yaml": 0o644,
        etc / "pki" / "ca.key": 0o644,
        etc / "pki" / "ca.crt": 0o644,
        etc / "pki" / "apiserver.crt": 0o664,
        kubelet / "config.yaml": 0o644,
    }
    for path, mode in modes.items():
        path.write_text("x")
        path.chmod(mode)
    etcd.chmod(0o755)
    # Whoever runs the tests owns these files, as root does those of a host.
    mine = MODES.replace("! -user root", f"! -user {os.getuid()}").replace("! -group root", f"! -group {os.getgid()}")
    assert mine.count(f" {os.getuid()} ") >= 1
    words = ("bash", "-c", mine, str(etc), str(kubelet), str(etcd))
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {line.rsplit("/", 1)[1]: line.split()[0] for line in lines}
    assert found == {
        "admin.conf": "177",
        "kube-apiserver.yaml": "177",
        "ca.key": "177",
        "apiserver.crt": "133",
        "config.yaml": "177",
        "etcd": "077",
    }


async def test_rights_are_only_taken_away() -> None:
    host = KnownFacts({})
    look = Says(("bash", "-c", MODES, *PLACES))
    host.facts[look] = said(
        "177 640 root:root /etc/kubernetes/admin.conf\n133 664 root:root /etc/kubernetes/pki/a.crt\n"
    )
    drift = await ModesNarrow().check(host)
    assert drift is not None
    assert "/etc/kubernetes/admin.conf 640 root:root" in drift.have
    await ModesNarrow().apply(host)
    assert [line for line in host.done if "chmod" in line] == [
        "chmod u-x,go-rwx -- /etc/kubernetes/admin.conf",
        "chmod u-x,go-wx -- /etc/kubernetes/pki/a.crt",
    ]
    host.facts[look] = said("")
    (result,) = await converge([ModesNarrow()], host, Impact.FILES)  # type: ignore[list-item]
    assert result.outcome == "ok"


async def test_a_folder_is_made_private_and_left_so() -> None:
    step, ask = FolderPrivate("it is private", "/x"), Says(("stat", "-c", "%F %a %U:%G", "--", "/x"))
    host = KnownFacts({ask: said("", 1)})
    assert "no such folder" in str(await step.check(host))
    await step.apply(host)
    assert host.done == ["install -d -m 700 -o root -g root -- /x"]
    host.facts[ask] = said("directory 700 root:root\n")
    assert await step.check(host) is None
    host.facts[ask] = said("directory 755 root:root\n")
    assert "755" in str(await step.check(host))
