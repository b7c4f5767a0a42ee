"""A restore on the host: the old data stay, a wrong backup changes nothing, and a run killed anywhere is ended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shipway.known_failures.catalogue import diagnose
from tests.backup.machine import Machine, Pristine

pytestmark = pytest.mark.long  # each runs the whole script

PARTS = {"etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"}
# Kills the script itself at its so-manieth rename, before or after that was done.
MV = """#!/bin/bash
count=$(($(cat {here}/renames 2>/dev/null || echo 0) + 1)); echo $count > {here}/renames
[ "$count" = {dies} ] && [ {when} = before ] && kill -9 $PPID && exit 1
/bin/mv "$@"; status=$?
[ "$count" = {dies} ] && kill -9 $PPID
exit $status
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Pristine:
    return Pristine(tmp_path_factory.mktemp("machine"), tmp_path_factory.mktemp("copy") / "all")


@pytest.fixture
def machine(pristine: Pristine) -> Machine:
    """A machine with a verified backup, and newer data."""
    made = pristine.fresh()
    (made.here / "etcd-data" / "member" / "snap" / "db").write_text("the data of now\n")
    return made


def backup(machine: Machine) -> str:
    return str(machine.root / machine.names()[0])


def code_of(said: str) -> str:
    known = diagnose(said)
    assert known is not None, said
    return known.code


def assert_restored(machine: Machine) -> None:
    data = machine.here / "etcd-data"
    assert "shipway-backup-canary" in (data / "member" / "snap" / "db").read_text()
    (aside,) = data.glob("member.before-*")
    assert (aside / "snap" / "db").read_text() == "the data of now\n"
    assert {path.name for path in (machine.here / "kubernetes" / "manifests").iterdir()} == PARTS
    assert sorted(path.name for path in data.iterdir()) == sorted(["member", aside.name])
    assert not (machine.here / "hold").exists()


def assert_untouched(machine: Machine) -> None:
    assert (machine.here / "etcd-data" / "member" / "snap" / "db").read_text() == "the data of now\n"
    assert {path.name for path in (machine.here / "kubernetes" / "manifests").iterdir()} == PARTS
    assert not (machine.here / "hold").exists()


def test_the_backup_is_in_place_with_its_revision_raised_and_the_old_data_aside(machine: Machine) -> None:
    status, said = machine.run("restore", backup(machine))
    assert status == 0, said
    assert_restored(machine)
    how = (machine.here / "how").read_text()
    for words in (
        "--bump-revision 1000000000 --mark-compacted",
        "--name cp1",
        "--initial-cluster cp1=https://10.0.0.1:2380",
    ):
        assert words in how
    assert f"restored={machine.names()[0]} " in machine.run("look")[1]


@pytest.mark.parametrize("case", ["unverified", "flipped", "another authority", "a stranger's", "not there"])
def test_a_backup_that_may_not_be_restored_changes_nothing(machine: Machine, case: str) -> None:
    folder = Path(backup(machine))
    if case == "unverified":
        (folder / "verified").unlink()
    elif case == "flipped":
        (folder / "snapshot.db").write_bytes(b"x" + (folder / "snapshot.db").read_bytes()[1:])
    elif case == "another authority":
        (machine.here / "kubernetes" / "pki" / "ca.crt").write_text("another\n")
    elif case == "a stranger's":
        (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace('"te"', '"other"'))
    else:
        folder = folder.with_name("20200101T000000Z")
    status, said = machine.run("restore", str(folder))
    assert (status, code_of(said)) == (1, "SHW-725" if case == "flipped" else "SHW-734"), said
    assert_untouched(machine)


@pytest.mark.parametrize("case", ["no file", "another key", "not in the backup", "no flag"])
def test_encrypted_secrets_are_not_restored_where_their_key_is_not(machine: Machine, case: str) -> None:
    own = machine.here / "kubernetes" / "encryption.yaml"
    copy = Path(backup(machine)) / "files" / str(own)[1:]
    key = own.read_text().split()[-1]
    if case == "no file":
        own.unlink()
    elif case == "another key":
        own.write_text("      secret: YW5vdGhlciBrZXkgb2YgdGhlIHNhbWUgbGVuZ3Ro\n")
    elif case == "not in the backup":
        (Path(backup(machine)) / "verified").unlink()
        copy.unlink()
        text = (Path(backup(machine)) / "manifest.json").read_text()
        (Path(backup(machine)) / "manifest.json").write_text(re.sub(r'.*encryption\.yaml": .*\n', "", text))
        assert machine.run("verify", backup(machine))[0] == 0
    else:
        manifest = machine.here / "kubernetes" / "manifests" / "kube-apiserver.yaml"
        manifest.write_text(manifest.read_text().replace("--encryption-provider-config", "--other"))
    status, said = machine.run("restore", backup(machine))
    assert (status, code_of(said)) == (1, "SHW-814"), said
    assert key not in said
    assert_untouched(machine)


def test_a_key_that_was_added_since_keeps_no_backup_from_being_restored(machine: Machine) -> None:
    own = machine.here / "kubernetes" / "encryption.yaml"
    own.write_text("      secret: YW5vdGhlciBrZXkgb2YgdGhlIHNhbWUgbGVuZ3Ro\n" + own.read_text())
    status, said = machine.run("restore", backup(machine))
    assert status == 0, said


def test_a_snapshot_that_etcd_does_not_restore_leaves_the_cluster_as_it_was(machine: Machine) -> None:
    tool = next((machine.here / "programs").glob("*/etcdctl"))
    tool.write_text(tool.read_text().replace('mkdir -p "$data/member/snap"', "exit 1; true"))
    status, said = machine.run("restore", backup(machine))
    assert (status, code_of(said)) == (1, "SHW-725"), said
    assert_untouched(machine)


def test_an_etcd_that_does_not_stop_gets_its_manifest_back(machine: Machine) -> None:
    path = machine.here / "etcd-data" / "member" / "snap" / "db"
    flock = machine.here / "bin" / "flock"
    flock.write_text(f'#!/bin/bash\n[ "${{*: -2:1}}" != {path} ]\n')
    flock.chmod(0o755)
    status, said = machine.run("restore", backup(machine))
    assert (status, code_of(said)) == (1, "SHW-737"), said
    assert_untouched(machine)


def test_an_etcd_that_does_not_stop_in_the_middle_of_the_change_is_not_started_on_nothing(machine: Machine) -> None:
    mv = machine.here / "bin" / "mv"
    mv.write_text(MV.format(here=machine.here, dies=7, when="after"))  # the old data are aside, the new not yet there
    mv.chmod(0o755)
    assert machine.run("restore", backup(machine))[0] != 0
    mv.unlink()
    data = machine.here / "etcd-data"
    assert not (data / "member").exists()
    (data / "member" / "snap").mkdir(parents=True)  # somebody's etcd came up on nothing meanwhile, and holds it
    (data / "member" / "snap" / "db").write_text("")
    flock = machine.here / "bin" / "flock"
    flock.write_text(f'#!/bin/bash\n[ "${{*: -2:1}}" != {data}/member/snap/db ]\n')
    flock.chmod(0o755)
    status, said = machine.run("restore", backup(machine))
    assert (status, code_of(said)) == (1, "SHW-737"), said
    assert "they stay stopped" in said
    assert not list((machine.here / "kubernetes" / "manifests").iterdir())
    assert list(data.glob("member.before-*"))


def test_another_restore_that_was_broken_off_is_ended_first(machine: Machine) -> None:
    (machine.here / "hold" / "manifests").mkdir(parents=True)
    (machine.here / "hold" / "from").write_text("/elsewhere\n")
    status, said = machine.run("restore", backup(machine))
    assert (status, code_of(said)) == (1, "SHW-734"), said
    assert "restoring=/elsewhere" in machine.run("look")[1]


@pytest.mark.parametrize(
    ("dies", "when"),
    [(1, "after"), (2, "after"), (4, "before"), (7, "before"), (7, "after"), (8, "after"), (9, "after"), (12, "after")],
)
def test_a_restore_that_is_killed_at_a_rename_is_ended_by_the_next_run(machine: Machine, dies: int, when: str) -> None:
    mv = machine.here / "bin" / "mv"
    mv.write_text(MV.format(here=machine.here, dies=dies, when=when))
    mv.chmod(0o755)
    status, _ = machine.run("restore", backup(machine))
    assert status != 0, "it was not killed"
    mv.unlink()
    status, said = machine.run("restore", backup(machine))
    assert status == 0, said
    assert_restored(machine)
