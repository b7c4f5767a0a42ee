"""Several control planes, and bare ones, on the host: stopped and started as they were, data aside, a backup adopted.

Whatever is killed where, the same command again ends it; nothing is written over, and no data are deleted.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shipway.backup.script import Settings
from shipway.ownership.evidence import JOINING, STARTED
from tests.backup.machine import Machine, Pristine
from tests.backup.test_restore_script import MV, PARTS, assert_untouched, backup, code_of

pytestmark = pytest.mark.long  # each runs the whole script, some of them many times

ID, LEAD = "20261129T120000Z-0a1b2c3d", "cp1"
KEYS = (
    "sa.key",
    "sa.pub",
    *(f"{name}.{kind}" for name in ("ca", "front-proxy-ca", "etcd/ca") for kind in ("crt", "key")),
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Pristine:
    """A machine with all keys of a control plane, and a verified backup."""
    return Pristine(tmp_path_factory.mktemp("machine"), tmp_path_factory.mktemp("copy") / "all", prepare=keys_of)


def keys_of(machine: Machine) -> None:
    for name in KEYS:
        path = machine.here / "kubernetes" / "pki" / name
        path.write_text(f"{name} of the cluster\n")


@pytest.fixture
def machine(pristine: Pristine) -> Machine:
    """A machine with a verified backup, and newer data."""
    made = pristine.fresh()
    (made.here / "etcd-data" / "member" / "snap" / "db").write_text("the data of now\n")
    return made


@pytest.fixture
def bare(machine: Machine) -> Machine:
    """A machine on which the backup is all that there is."""
    shutil.rmtree(machine.here / "kubernetes")
    shutil.rmtree(machine.here / "etcd-data")
    return machine


def kill_at(machine: Machine, dies: int, when: str) -> Path:
    mv = machine.here / "bin" / "mv"
    mv.write_text(MV.format(here=machine.here, dies=dies, when=when))
    mv.chmod(0o755)
    return mv


def look(machine: Machine) -> dict[str, str]:
    said = machine.run("look")[1]
    return {key: value for key, _, value in (line.partition("=") for line in said.splitlines())}


def aside_of(machine: Machine) -> Path:
    (folder,) = machine.here.glob("etcd-data-before-*")
    return folder


def test_the_marks_are_those_by_which_a_bootstrap_goes_on() -> None:
    assert (Settings("te", 1, 1).started, Settings("te", 1, 1).joining) == (STARTED, JOINING)


def test_a_stop_takes_the_manifests_out_and_leaves_the_data_and_a_start_puts_them_back(machine: Machine) -> None:
    status, said = machine.run("stop", backup(machine), ID, LEAD)
    assert status == 0, said
    assert not list((machine.here / "kubernetes" / "manifests").iterdir())
    seen = look(machine)
    assert (seen["restoring"], seen["id"], seen["lead"], seen["held"]) == (backup(machine), ID, LEAD, "yes")
    assert machine.run("stop", backup(machine), ID, LEAD)[0] == 0, "again"
    assert machine.run("start")[0] == 0
    assert_untouched(machine)
    assert machine.run("start")[0] == 0, "again"


def test_a_control_plane_that_does_not_stop_runs_on_as_it_was(machine: Machine) -> None:
    path = machine.here / "etcd-data" / "member" / "snap" / "db"
    flock = machine.here / "bin" / "flock"
    flock.write_text(f'#!/bin/bash\n[ "${{*: -2:1}}" != {path} ]\n')
    flock.chmod(0o755)
    status, said = machine.run("stop", backup(machine), ID, LEAD)
    assert (status, code_of(said)) == (1, "SHW-737"), said
    assert_untouched(machine)


def test_a_stop_for_another_restore_than_the_one_under_way_changes_nothing(machine: Machine) -> None:
    assert machine.run("stop", backup(machine), ID, LEAD)[0] == 0
    for words in (("stop", backup(machine), "other", LEAD), ("restore", backup(machine), "other", LEAD)):
        status, said = machine.run(*words)
        assert (status, code_of(said)) == (1, "SHW-734"), said
    assert look(machine)["id"] == ID


def test_the_host_that_gets_the_data_goes_on_from_its_stop_and_says_which_restore_that_was(machine: Machine) -> None:
    assert machine.run("stop", backup(machine), ID, LEAD)[0] == 0
    status, said = machine.run("restore", backup(machine), ID, LEAD)
    assert status == 0, said
    name, _, by = look(machine)["restored"].split(" ")
    assert (name, by) == (machine.names()[0], ID)
    assert {path.name for path in (machine.here / "kubernetes" / "manifests").iterdir()} == PARTS


def test_what_was_restored_is_not_started_as_it_was(machine: Machine) -> None:
    assert machine.run("stop", backup(machine), ID, LEAD)[0] == 0
    machine.lie("dead")
    status, said = machine.run("restore", backup(machine), ID, LEAD)
    assert (status, code_of(said)) == (1, "SHW-738"), said
    status, said = machine.run("start")
    assert (status, code_of(said)) == (1, "SHW-737"), said
    assert (look(machine)["changed"], look(machine)["manifest"]) == ("yes", "yes"), "etcd's is back already"
    machine.lie("dead", on=False)
    assert machine.run("restore", backup(machine), ID, LEAD)[0] == 0


def test_data_go_aside_out_of_the_folder_that_a_reset_empties_and_the_host_may_be_joined(machine: Machine) -> None:
    old = machine.here / "etcd-data" / "member.before-20260101T000000Z"
    old.mkdir()
    assert machine.run("stop", backup(machine), ID, LEAD)[0] == 0
    status, said = machine.run("aside", backup(machine), ID)
    assert status == 0, said
    assert not list((machine.here / "etcd-data").iterdir())
    aside = aside_of(machine)
    assert (aside / "member" / "snap" / "db").read_text() == "the data of now\n"
    assert {path.name for path in aside.iterdir()} == {"member", old.name, "manifests"}
    assert {path.name for path in (aside / "manifests").iterdir()} == PARTS
    assert (machine.here / "joining").read_text() == "te\n"
    seen = look(machine)
    assert (seen["aside"], seen["restoring"]) == (ID, "")


@pytest.mark.parametrize("case", ["not stopped", "of another restore"])
def test_data_go_aside_only_where_this_restore_has_stopped_the_host(machine: Machine, case: str) -> None:
    if case == "of another restore":
        assert machine.run("stop", backup(machine), "other", LEAD)[0] == 0
    status, said = machine.run("aside", backup(machine), ID)
    assert (status, code_of(said)) == (1, "SHW-734"), said
    assert (machine.here / "etcd-data" / "member" / "snap" / "db").read_text() == "the data of now\n"
    assert not (machine.here / "joining").exists()


def test_an_etcd_that_was_started_on_the_host_since_keeps_its_data(machine: Machine) -> None:
    assert machine.run("stop", backup(machine), ID, LEAD)[0] == 0
    kill_at(machine, 1, "after").touch()
    (machine.here / "renames").unlink(missing_ok=True)
    assert machine.run("aside", backup(machine), ID)[0] != 0
    (machine.here / "bin" / "mv").unlink()
    (machine.here / "etcd-data" / "member" / "snap").mkdir(parents=True)
    status, said = machine.run("aside", backup(machine), ID)
    assert (status, code_of(said)) == (1, "SHW-737"), said
    assert (machine.here / "etcd-data" / "member" / "snap").is_dir()
    assert (aside_of(machine) / "member" / "snap" / "db").read_text() == "the data of now\n"


@pytest.mark.parametrize("dies", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_killed_while_data_go_aside_is_ended_by_the_next_run(machine: Machine, dies: int, when: str) -> None:
    assert machine.run("stop", backup(machine), ID, LEAD)[0] == 0
    mv = kill_at(machine, dies, when)
    assert machine.run("aside", backup(machine), ID)[0] != 0
    mv.unlink()
    status, said = machine.run("aside", backup(machine), ID)
    assert status == 0, said
    assert (aside_of(machine) / "member" / "snap" / "db").read_text() == "the data of now\n"
    assert (machine.here / "joining").exists()


def adopt(machine: Machine) -> tuple[int, str]:
    return machine.run("adopt", backup(machine), ID, LEAD, "cp1", "https://10.0.0.1:2380")


def assert_adopted(machine: Machine) -> None:
    kubernetes = machine.here / "kubernetes"
    assert "shipway-backup-canary" in (machine.here / "etcd-data" / "member" / "snap" / "db").read_text()
    for name in KEYS:
        path = kubernetes / "pki" / name
        assert path.read_text() == f"{name} of the cluster\n"
        assert path.stat().st_mode & 0o777 == (0o600 if name.endswith(".key") else 0o644), name
    assert (kubernetes / "pki" / "etcd").stat().st_mode & 0o777 == 0o755
    assert (kubernetes / "encryption.yaml").stat().st_mode & 0o777 == 0o600
    assert not (kubernetes / "manifests").exists(), "kubeadm writes them"
    assert (machine.here / "init-started").read_text() == "te\n"
    assert not (machine.here / "hold").exists()
    assert look(machine)["restored"].endswith(ID)


def test_a_bare_host_gets_data_and_keys_and_the_mark_last(bare: Machine) -> None:
    status, said = adopt(bare)
    assert status == 0, said
    assert_adopted(bare)
    how = (bare.here / "how").read_text()
    for words in ("--name cp1", "--initial-cluster cp1=https://10.0.0.1:2380", "--bump-revision 1000000000"):
        assert words in how
    assert not list((bare.here / "etcd-data").glob("member.before-*"))


@pytest.mark.parametrize("dies", [1, 4, 5, 6, 7, 15, 16])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_killed_while_a_bare_host_adopts_is_ended_by_the_next_run(bare: Machine, dies: int, when: str) -> None:
    mv = kill_at(bare, dies, when)
    status, said = adopt(bare)
    assert status != 0, said
    mv.unlink()
    marked, data = (bare.here / "init-started").exists(), bare.here / "etcd-data" / "member"
    assert not marked or data.is_dir(), "the mark comes last: a bootstrap would begin a new cluster"
    status, said = adopt(bare)
    assert status == 0, said
    assert_adopted(bare)


@pytest.mark.parametrize("case", ["manifests", "data", "another key", "no key in it", "unverified"])
def test_a_host_that_is_not_bare_keeps_what_it_has(bare: Machine, case: str) -> None:
    kubernetes, data = bare.here / "kubernetes", bare.here / "etcd-data"
    if case == "manifests":
        (kubernetes / "manifests").mkdir(parents=True)
        (kubernetes / "manifests" / "etcd.yaml").write_text("kind: Pod\n")
    elif case == "data":
        (data / "member").mkdir(parents=True)
    elif case == "another key":
        (kubernetes / "pki").mkdir(parents=True)
        (kubernetes / "pki" / "sa.key").write_text("of another cluster\n")
    elif case == "no key in it":
        folder = Path(backup(bare))
        copy = folder / "files" / str(kubernetes)[1:] / "pki" / "sa.key"
        copy.unlink()
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text("\n".join(row for row in text.splitlines() if "pki/sa.key" not in row))
        assert bare.run("verify", str(folder))[0] == 0
    else:
        (Path(backup(bare)) / "verified").unlink()
    before = sorted(str(path) for folder in (kubernetes, data) for path in folder.rglob("*"))
    status, said = adopt(bare)
    assert (status, code_of(said)) == (1, "SHW-734"), said
    assert sorted(str(path) for folder in (kubernetes, data) for path in folder.rglob("*")) == before
    assert not (bare.here / "init-started").exists()
    assert not (bare.here / "hold").exists()


def test_keys_that_are_there_already_and_are_the_same_stay(bare: Machine) -> None:
    (bare.here / "kubernetes" / "pki").mkdir(parents=True)
    (bare.here / "kubernetes" / "pki" / "sa.key").write_text("sa.key of the cluster\n")
    (bare.here / "kubernetes" / "pki" / "sa.key").chmod(0o600)
    status, said = adopt(bare)
    assert status == 0, said
    assert_adopted(bare)


def test_a_snapshot_that_etcd_does_not_restore_leaves_a_bare_host_bare(bare: Machine) -> None:
    tool = next((bare.here / "programs").glob("*/etcdctl"))
    tool.write_text(tool.read_text().replace('mkdir -p "$data/member/snap"', "exit 1; true"))
    status, said = adopt(bare)
    assert (status, code_of(said)) == (1, "SHW-725"), said
    assert not (bare.here / "kubernetes").exists()
    assert not list((bare.here / "etcd-data").iterdir())
    assert not (bare.here / "hold").exists()
