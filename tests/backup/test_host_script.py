"""The script that a control plane's host runs: what it takes, what it believes, and what it never removes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from shipway.known_failures.catalogue import diagnose
from tests.backup.machine import ETCDCTL, Machine, Pristine

pytestmark = pytest.mark.long  # each runs the whole script, some of them many times

STRANGER = "20200101T000000Z"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Pristine:
    return Pristine(tmp_path_factory.mktemp("machine"), tmp_path_factory.mktemp("copy") / "all")


@pytest.fixture
def taken(pristine: Pristine) -> Machine:
    """A machine with a verified backup."""
    return pristine.fresh()


def code_of(said: str) -> str:
    known = diagnose(said)
    assert known is not None, said
    return known.code


def test_a_backup_has_all_that_a_restore_needs_and_is_verified_by_a_restore(taken: Machine) -> None:
    (name,) = taken.names()
    folder, manifest = taken.root / name, taken.manifest(name)
    files = manifest["files"]
    assert isinstance(files, dict)
    kubernetes = str(taken.here / "kubernetes").lstrip("/")
    wanted = ("snapshot.db", "counts", "members", "kubeadm-config.yaml")
    own = ("encryption.yaml", "pki/ca.key", "manifests/etcd.yaml", "admin.conf")
    assert {*wanted, *(f"files/{kubernetes}/{path}" for path in own)} <= set(files)
    for path, digest in files.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
    assert manifest["revision"] == 100
    assert manifest["keys"] == 24, "the canary is one of them"
    assert manifest["counted_at"] == "revision"
    assert manifest["canary"] == "/registry/configmaps/kube-system/shipway-backup-canary"
    assert manifest["marks"] == []
    assert "24 keys of 5 kinds" in (folder / "verified").read_text()


def test_nobody_else_reads_it_and_nothing_is_left_beside_it(taken: Machine) -> None:
    for path in (taken.root, *taken.root.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert sorted(path.name for path in taken.root.iterdir()) == sorted([".lock", *taken.names()])
    etcd = int((taken.here / "etcd.pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(etcd, 0)


def test_the_throw_away_etcd_has_limits_and_a_network_of_its_own(taken: Machine) -> None:
    unit = (taken.here / "units").read_text()
    for words in ("PrivateNetwork=yes", "Nice=19", "IOSchedulingClass=idle", "MemoryMax=25%", "RuntimeMaxSec=1800"):
        assert words in unit


def test_no_secret_is_an_argument_or_is_said(machine: Machine) -> None:
    _, said = machine.run("take")
    assert "the key that all Secrets need" not in said
    assert "a key" not in said + (machine.here / "units").read_text()


def test_the_programs_are_taken_out_of_the_image_once(taken: Machine) -> None:
    (taken.here / "image" / "etcdctl").unlink()
    assert taken.run("take")[0] == 0


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("silent", "SHW-720"),
        ("full", "SHW-724"),
        ("dead", "SHW-727"),
        ("killed", "SHW-727"),
        ("loses", "SHW-728"),
        ("canary", "SHW-729"),
    ],
)
def test_what_is_no_backup_is_not_verified_and_says_why(machine: Machine, lie: str, code: str) -> None:
    machine.lie(lie)
    status, said = machine.run("take")
    assert (status, code_of(said)) == (1, code), said
    assert not list(machine.root.glob("*/verified"))
    assert not [path for path in machine.root.iterdir() if path.name.startswith((".part", ".verify", ".image"))]


def test_a_host_without_kubeadms_etcd_or_its_programs_is_told(machine: Machine) -> None:
    manifest = machine.here / "kubernetes" / "manifests" / "etcd.yaml"
    (machine.here / "image" / "etcdctl").unlink()
    assert code_of(machine.run("take")[1]) == "SHW-721"
    manifest.unlink()
    assert code_of(machine.run("take")[1]) == "SHW-720"


def test_too_little_room_is_said_before_anything_is_taken(machine: Machine) -> None:
    df = machine.here / "bin" / "df"
    df.write_text("#!/bin/bash\nprintf 'Avail\\n1048576\\n'\n")
    df.chmod(0o755)
    assert code_of(machine.run("take")[1]) == "SHW-722"
    assert machine.names() == []


def test_without_a_network_of_its_own_nothing_is_served(machine: Machine) -> None:
    own = machine.here / "proc" / "self" / "ns" / "net"
    own.unlink()
    own.symlink_to("net:[1]")
    assert code_of(machine.run("take")[1]) == "SHW-730"
    assert not (machine.here / "etcd.pid").exists()


@pytest.mark.parametrize(("lie", "mark"), [("nospace", "NOSPACE"), ("leaderless", "no leader"), ("api", "no canary")])
def test_an_etcd_in_trouble_is_backed_up_and_marked(machine: Machine, lie: str, mark: str) -> None:
    machine.lie(lie)
    status, said = machine.run("take")
    assert status == 0, said
    assert mark in str(machine.manifest(machine.names()[0])["marks"])


def test_without_an_api_an_object_that_is_there_is_the_canary(machine: Machine) -> None:
    machine.lie("api")
    machine.run("take")
    assert machine.manifest(machine.names()[0])["canary"] == "/registry/namespaces/default"


def test_a_compacted_revision_is_counted_now_and_one_of_a_hundred_may_be_missing(machine: Machine) -> None:
    machine.lie("compacted")
    assert machine.run("take")[0] == 0
    assert machine.manifest(machine.names()[0])["counted_at"] == "now"
    machine.lie("loses")
    assert code_of(machine.run("take")[1]) == "SHW-728"


def test_a_flipped_byte_is_found_and_the_backup_is_verified_no_more(taken: Machine) -> None:
    (name,) = taken.names()
    snapshot = taken.root / name / "snapshot.db"
    content = bytearray(snapshot.read_bytes())
    content[40] ^= 1
    snapshot.write_bytes(content)
    status, said = taken.run("verify", str(taken.root / name))
    assert (status, code_of(said)) == (1, "SHW-725"), said


def test_etcds_own_checksum_is_asked_where_every_digest_of_ours_fits(taken: Machine) -> None:
    (name,) = taken.names()
    folder = taken.root / name
    text = (folder / "manifest.json").read_text()
    before = hashlib.sha256((folder / "snapshot.db").read_bytes()).hexdigest()
    content = (folder / "snapshot.db").read_text().replace("/registry/pods/default/p1 x", "/registry/pods/default/p1 y")
    (folder / "snapshot.db").write_text(content)
    after = hashlib.sha256(content.encode()).hexdigest()
    (folder / "manifest.json").write_text(text.replace(before, after))
    status, said = taken.run("verify", str(folder))
    assert (status, code_of(said)) == (1, "SHW-725"), said
    assert "hash" in said


def test_a_manifest_that_was_changed_makes_a_backup_unverified(taken: Machine) -> None:
    (name,) = taken.names()
    assert f"backup={name} verified" in taken.run("look")[1]
    manifest = taken.root / name / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"keys": 24', '"keys": 25'))
    assert f"backup={name} unverified" in taken.run("look")[1]


def test_a_revision_that_went_back_is_not_believed_unless_the_cluster_is_another(taken: Machine) -> None:
    taken.revision(99)
    status, said = taken.run("take")
    assert (status, code_of(said)) == (1, "SHW-726"), said
    (taken.here / "id").write_text("12")
    assert taken.run("take")[0] == 0, "a restored cluster has another id"


def test_no_backup_is_taken_in_the_middle_of_a_restore(machine: Machine) -> None:
    """By the timer, once etcd answers again: to keep so many could have removed the backup that is being restored."""
    (machine.here / "hold").mkdir()
    (machine.here / "hold" / "from").write_text("/x/20261129T000000Z")
    assert code_of(machine.run("take")[1]) == "SHW-734"


def test_another_backup_under_way_is_refused(machine: Machine) -> None:
    machine.root.mkdir()
    flock = machine.here / "bin" / "flock"
    flock.write_text("#!/bin/bash\nexit 1\n")
    flock.chmod(0o755)
    assert code_of(machine.run("take")[1]) == "SHW-723"


def test_what_a_killed_run_left_goes_and_a_strangers_folder_stays(machine: Machine) -> None:
    for name in (".part-20260101T000000Z", ".verify-20260101T000000Z", STRANGER, "notes"):
        (machine.root / name).mkdir(parents=True)
        (machine.root / name / "x").touch()
    assert machine.run("take")[0] == 0
    assert sorted(p.name for p in machine.root.iterdir() if not p.name.startswith("202")) == sorted([".lock", "notes"])
    assert STRANGER in machine.names()
    assert not list(machine.root.glob(".part-*"))
    assert not list(machine.root.glob(".verify-*"))


def test_too_many_and_too_old_ones_go_and_the_newest_verified_one_never(taken: Machine) -> None:
    (name,) = taken.names()
    for other in ("20200101T000000Z", "20200102T000000Z", "20200103T000000Z", "20200104T000000Z"):
        taken.copied(name, other)
    (taken.root / "20190101T000000Z").symlink_to(taken.root / name)
    assert taken.run("take")[0] == 0
    left = taken.names()
    assert left == ["20190101T000000Z", name, left[-1]], "all others are older than the days that are declared"


def test_only_so_many_verified_ones_stay(tmp_path: Path) -> None:
    machine = Machine(tmp_path, keep=2, days=9999)
    assert machine.run("take")[0] == 0
    (name,) = machine.names()
    machine.copied(name, "20250101T000000Z")
    machine.copied(name, "20250102T000000Z", verified=False)
    assert machine.run("take")[0] == 0
    assert [name, machine.names()[-1]] == machine.names()


def test_the_last_verified_one_stays_however_old_and_few_that_were_never_verified(taken: Machine) -> None:
    (name,) = taken.names()
    (taken.root / name).rename(taken.root / "20200101T000000Z")
    for number in range(1, 6):
        taken.copied("20200101T000000Z", f"2021010{number}T000000Z", verified=False)
    taken.lie("loses")
    assert taken.run("take")[0] == 1
    names = taken.names()
    assert names[0] == "20200101T000000Z"
    assert len(names) == 4, "the newest three that were never verified stay to be looked at"


def test_a_look_changes_nothing_and_says_what_is_there(machine: Machine) -> None:
    _, said = machine.run("look")
    lines = dict(line.split("=", 1) for line in said.splitlines())
    assert lines["manifest"] == "yes"
    assert lines["image"] == "registry.k8s.io/etcd:3.5.16-0"
    assert lines["database"] == "20480"
    assert int(lines["free"]) > 0
    assert not machine.root.exists()


def test_a_backup_says_that_it_carries_the_key_of_encryption_at_rest(taken: Machine) -> None:
    (name,) = taken.names()
    assert taken.manifest(name)["encryption"] == str(taken.here / "kubernetes" / "encryption.yaml")
    (line,) = [line for line in taken.run("look")[1].splitlines() if line.startswith("backup=")]
    assert line.endswith(" key")


def test_a_backup_without_that_key_is_none(machine: Machine) -> None:
    (machine.here / "kubernetes" / "encryption.yaml").unlink()
    status, said = machine.run("take")
    assert (status, code_of(said)) == (1, "SHW-814"), said
    assert machine.names() == []


def test_a_key_whose_name_no_copy_may_have_is_no_backup_either(machine: Machine) -> None:
    own, odd = (machine.here / "kubernetes" / name for name in ("encryption.yaml", "encryption%.yaml"))
    own.rename(odd)
    manifest = machine.here / "kubernetes" / "manifests" / "kube-apiserver.yaml"
    manifest.write_text(manifest.read_text().replace(str(own), str(odd)))
    assert code_of(machine.run("take")[1]) == "SHW-814"
    assert machine.names() == []


@pytest.mark.parametrize("pod", ["kube-apiserver", "etcd"])
def test_a_static_pod_that_is_started_anew_meanwhile_is_no_backup_without_its_manifest(
    machine: Machine, pod: str
) -> None:
    """Its manifest lies elsewhere then, and nobody could tell by which key Secrets are encrypted."""
    manifest = machine.here / "kubernetes" / "manifests" / f"{pod}.yaml"
    tool = machine.here / "image" / "etcdctl"
    tool.write_text(tool.read_text().replace("*'member list'*)", f"*'member list'*) mv {manifest} {machine.here};"))
    status, said = machine.run("take")
    assert (status, code_of(said)) == (1, "SHW-735"), said
    assert machine.names() == []
    (machine.here / f"{pod}.yaml").rename(manifest)
    tool.write_text(ETCDCTL.format(here=machine.here))
    next((machine.here / "programs").glob("*/complete")).unlink()
    assert machine.run("take")[0] == 0


def test_encrypted_secrets_without_a_key_that_the_api_server_is_told_of_are_not_verified(machine: Machine) -> None:
    manifest = machine.here / "kubernetes" / "manifests" / "kube-apiserver.yaml"
    manifest.write_text(manifest.read_text().replace("--encryption-provider-config", "--other"))
    keys = machine.here / "keys"
    plain = keys.read_text() + "/registry/secrets/default/a k8s-in-plain\n"
    keys.write_text(plain)
    assert machine.run("take")[0] == 0
    keys.write_text(plain + "/registry/secrets/default/b k8s:enc:secretbox:v1:shipway1:x\n")
    status, said = machine.run("take")
    assert (status, code_of(said)) == (1, "SHW-814"), said
    assert not (machine.root / machine.names()[-1] / "verified").exists()
