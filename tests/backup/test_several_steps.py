"""A backup that this machine keeps comes to a host, whole or not at all; what hosts do in a restore of several."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.backup.choice import Choice
from shipway.backup.kept import LocalFolder
from shipway.backup.script import PLACE, ROOT
from shipway.cluster_file import parse_cluster
from shipway.converge import converge
from shipway.errors import Permanent, Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kubeadm.hardening import ENCRYPTION
from shipway.ownership.evidence import KUBELET_CONF, Evidence, authorities
from shipway.place import Place
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.backup import brought
from shipway.steps.backup.brought import BackupBrought, BackupVerified
from shipway.steps.backup.several import (
    BackupAdopted,
    ControlPlaneStarted,
    ControlPlaneStopped,
    DataAside,
    GoneForGood,
    QuorumLost,
    api_answer,
)
from shipway.steps.kubernetes.skew import own_api
from shipway.steps.system.sources import DIAL
from tasks.backup import restores
from tasks.backup.restores import BackupFits
from tasks.context import Run
from tests.backup.machine import LocalShell, Machine
from tests.backup.test_choice import EMPTY, NEW
from tests.ownership.test_leading import cluster as three
from tests.places.facts import KnownFacts, said
from tests.places.kube import authority

W1 = Evidence("w1", certificate=True)
FILE = "name: te\nprofile: seed\nhosts: [{name: cp1, address: 192.0.2.1}, {name: w1, address: 192.0.2.9}]\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    """A folder of this machine with one backup, which nobody changes."""
    machine = Machine(tmp_path_factory.mktemp("origin"))
    code, said = machine.run("take")
    assert code == 0, said
    folder = LocalFolder(tmp_path_factory.mktemp("kept"), "te")
    folder.own.mkdir()
    shutil.copytree(machine.root / machine.names()[0], folder.own / machine.names()[0])
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """A host on which no backup is."""
    return Machine(tmp_path / "bare")


def step(machine: Machine, folder: LocalFolder) -> BackupBrought:
    return BackupBrought((machine.here / "script").read_text(), folder, folder.names()[0], str(machine.root))


@pytest.mark.long
async def test_a_kept_backup_comes_to_the_host_private_and_unverified_until_it_is_restored_there(
    kept: LocalFolder, bare: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brought, "PART", 100)
    on, name = Host("cp1", LocalShell(bare)), kept.names()[0]
    (result,) = await converge([step(bare, kept)], on, Impact.FILES)
    assert (result.outcome, result.error) == ("changed", None)
    for path in (kept.own / name).rglob("*"):
        there = bare.root / name / path.relative_to(kept.own / name)
        if path.is_file() and path.name != "verified":
            assert there.read_bytes() == path.read_bytes()
        if there.exists():
            assert there.stat().st_mode & 0o077 == 0, there
    verified = BackupVerified((bare.here / "script").read_text(), name, str(bare.root))
    on.forget()
    assert await verified.check(on) is not None, "a marker of another host says nothing"
    code, said = bare.run("verify", str(bare.root / name))
    assert code == 0, said
    on.forget()
    assert await verified.check(on) is None
    assert await step(bare, kept).check(on) is None


async def test_a_copy_that_is_damaged_here_never_gets_its_name_on_the_host(
    kept: LocalFolder, bare: Machine, tmp_path: Path
) -> None:
    shutil.copytree(kept.path, tmp_path / "damaged")
    folder = LocalFolder(tmp_path / "damaged", "te")
    file = folder.own / folder.names()[0] / "snapshot.db"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(Permanent) as caught:
        await step(bare, folder).apply(Host("cp1", LocalShell(bare)))
    assert caught.value.code == "SHW-731"
    assert bare.names() == []


async def test_another_backup_of_that_name_on_the_host_is_not_replaced(kept: LocalFolder, bare: Machine) -> None:
    folder = bare.root / kept.names()[0]
    shutil.copytree(kept.own / kept.names()[0], folder)
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + "\n")
    with pytest.raises(Refused) as caught:
        await step(bare, kept).check(Host("cp1", LocalShell(bare)))
    assert caught.value.code == "SHW-734"


class Forgetful(KnownFacts):
    """Answers the facts that it was given, and keeps that it was asked anew."""

    forgot = False

    def forget(self) -> None:
        """Ask anew."""
        self.forgot = True


class Telling(Place):
    """A host that says what it is told to say, and keeps what it is let do."""

    name = "cp1"

    def __init__(self, state: Any) -> None:
        self.state, self.done = state, list[tuple[str, ...]]()

    async def read(self, _: Fact[Any]) -> Any:
        """Return it."""
        return self.state

    def forget(self) -> None:
        """Know nothing."""

    async def succeed(self, name: str, words: Sequence[str], *, seconds: int) -> Output:
        """Keep the command."""
        assert seconds > 0
        self.done.append((name, *words))
        return Output(0, "", "")


RUNS, HELD = replace(EMPTY, manifest=True), replace(EMPTY, held=True, restoring=f"{ROOT}/{NEW}", id="id", lead="cp1")
CHANGED = replace(HELD, manifest=True, held=False, changed=True)  # killed while the new data were started
PAST = replace(EMPTY, manifest=True, aside="id")
GIVEN = replace(EMPTY, manifest=True, restored=f"{NEW} 20261129T010203Z id")
HOST = parse_cluster(FILE).hosts[0]
STEPS = {
    "stopped": ControlPlaneStopped("", NEW, "id", "cp1"),
    "aside": DataAside("", NEW, "id"),
    "started": ControlPlaneStarted("", "id"),
    "adopted": BackupAdopted("", NEW, "id", HOST),
}


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("stopped", {"RUNS": False, "HELD": True, "CHANGED": True, "PAST": True, "GIVEN": True}),
        ("aside", {"RUNS": False, "HELD": False, "PAST": True}),
        ("started", {"RUNS": True, "HELD": False, "PAST": True}),
        ("adopted", {"RUNS": False, "HELD": False, "GIVEN": True}),
    ],
)
async def test_a_host_takes_part_in_one_restore_once(which: str, wanted: dict[str, bool]) -> None:
    states = {"RUNS": RUNS, "HELD": HELD, "CHANGED": CHANGED, "PAST": PAST, "GIVEN": GIVEN}
    for name, as_wanted in wanted.items():
        drift = await STEPS[which].check(cast("Host", Telling(states[name])))
        assert (drift is None) == as_wanted, name


async def test_beside_a_host_with_the_restored_data_nothing_is_started_as_it_was() -> None:
    for state in (GIVEN, replace(GIVEN, restoring=f"{ROOT}/{NEW}")):
        with pytest.raises(Refused) as caught:
            await STEPS["started"].check(cast("Host", Telling(state)))
        assert caught.value.code == "SHW-737"


async def test_a_quorum_that_came_back_since_the_choice_is_not_stopped() -> None:
    lead = Telling(Output(0, '{"health":"true"}', ""))
    with pytest.raises(Refused) as caught:
        await ControlPlaneStopped("", NEW, "id", "cp1", (cast("Host", lead),)).apply(cast("Host", lead))
    assert caught.value.code == "SHW-752"
    assert lead.done == []


async def test_what_another_restore_has_stopped_is_not_stopped_by_this_one() -> None:
    assert await STEPS["stopped"].check(cast("Host", Telling(replace(HELD, id="another")))) is not None


async def test_each_is_a_command_of_the_script_with_the_restores_id() -> None:
    on = Telling(EMPTY)
    for one in STEPS.values():
        await one.apply(cast("Host", on))
    folder = f"{ROOT}/{NEW}"
    assert on.done == [
        ("restore-stop", "bash", PLACE, "stop", folder, "id", "cp1"),
        ("restore-aside", "bash", PLACE, "aside", folder, "id"),
        ("restore-start", "bash", PLACE, "start"),
        ("restore", "bash", PLACE, "adopt", folder, "id", "cp1", "cp1", "https://192.0.2.1:2380"),
    ]


@pytest.mark.parametrize(
    ("answers", "refused"), [(('{"health":"false"}', ""), False), (("", '{"health":"true"}'), True)]
)
async def test_a_quorum_that_stands_forbids_a_restore(answers: tuple[str, str], refused: bool) -> None:  # noqa: FBT001
    planes = tuple(cast("Host", Telling(Output(0, said, ""))) for said in answers)
    if not refused:
        assert await QuorumLost(planes).check(planes[0]) is None
        return
    with pytest.raises(Refused) as caught:
        await QuorumLost(planes).check(planes[0])
    assert caught.value.code == "SHW-752"


def dialled(address: str, port: int) -> Says:
    return Says(("bash", "-c", DIAL, address, str(port)), 5)


READY = "https://api.te.internal:6443"
CONF = f"clusters:\n- cluster:\n    server: {READY}\n"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({dialled("192.0.2.2", 2380): said("")}, "w1 reaches port 2380 of cp2"),
        ({dialled("192.0.2.3", 6443): said("")}, "w1 reaches port 6443 of cp3"),
        ({dialled("192.0.2.3", 10250): said("")}, "w1 reaches port 10250 of cp3"),
        (
            {FileText(KUBELET_CONF): CONF, own_api(CONF, "readyz")[1]: said("ok")},  # type: ignore[index]
            f"an API server that is ready answers w1 at {READY}",
        ),
        ({api_answer("lb:6443"): said("ok")}, "an API server that is ready answers w1 at https://lb:6443"),
    ],
)
async def test_what_is_called_gone_and_answers_a_host_that_was_seen_is_not_gone(
    facts: dict[Any, Any], words: str
) -> None:
    """cp2 and cp3 live with their quorum, and only the way of this machine to them is cut."""
    gone = {"cp2": "192.0.2.2", "cp3": "192.0.2.3"}
    lead, w1 = Forgetful({}), Forgetful(facts)
    lead.name, w1.name = "cp1", "w1"
    both = cast("tuple[Host, ...]", (lead, w1))
    with pytest.raises(Refused) as caught:
        await GoneForGood(gone, both, 6443, "lb:6443").check(both[0])
    assert (caught.value.code, words in caught.value.message) == ("SHW-754", True)
    assert w1.forgot, "as it is now, not as it was a moment ago"


async def test_an_api_server_that_is_not_ready_is_of_a_member_without_a_quorum_or_of_the_restore_itself() -> None:
    gone = {"cp2": "192.0.2.2"}
    without = Forgetful({FileText(KUBELET_CONF): CONF, own_api(CONF, "readyz")[1]: said("[-]etcd failed")})  # type: ignore[index]
    assert await GoneForGood(gone, (cast("Host", without),), 6443, "lb:6443").check(cast("Host", without)) is None
    restored = Forgetful({FileText(KUBELET_CONF): CONF, own_api(CONF, "readyz")[1]: said("ok")})  # type: ignore[index]
    assert await GoneForGood(gone, (cast("Host", restored),), 6443).check(cast("Host", restored)) is None


async def test_a_port_of_a_machine_is_dialled_for_real(bare: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        host = Host("w1", LocalShell(bare))
        (answer,) = await host.read_all([dialled("127.0.0.1", port)])
        assert answer.ok
    host.forget()
    (answer,) = await host.read_all([dialled("127.0.0.1", port)])
    assert not answer.ok


async def test_who_was_seen_is_asked_of_the_gone_before_the_restore_and_again_at_its_act(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, kept = Run(three(), "plan"), list[Any]()
    run.only, run.backup.gone, run.backup.source = ("cp1", "w1"), ("cp2", "cp3"), NEW
    run.seen.surveys = {"cp1": SimpleNamespace(evidence=Evidence("cp1")), "w1": SimpleNamespace(evidence=W1)}  # type: ignore[dict-item]

    async def bring(_: Run, _stage: str, _host: str, steps: list[Any]) -> list[Any]:
        kept.extend(one for one in steps if isinstance(one, GoneForGood))
        return []

    async def nothing(*_: Any) -> None: ...

    hosts = {name: Telling(EMPTY) for name in ("cp1", "w1")}
    monkeypatch.setattr(restores, "_bring", bring)
    monkeypatch.setattr(restores, "_look_anew", nothing)
    monkeypatch.setattr(run, "session", hosts.__getitem__)
    monkeypatch.setattr(run, "lead_by", nothing)
    await restores.restore_possible(run, "restore_possible", "cp1")
    await restores.restore_backup(run, "restore_backup", "cp1")
    before, act = kept
    assert before.gone == {"cp2": "10.9.0.2", "cp3": "10.9.0.3"}
    assert before.witnesses == act.witnesses == tuple(hosts.values())
    assert (before.api, act.api) == ("api.te.internal:6443", ""), "a second attempt meets the API that it restored"
    run.backup.gone = ()
    await restores.restore_possible(run, "restore_possible", "cp1")
    assert len(kept) == 2


CA = authority().certificate.decode()


def copy_of(folder: Path, **changes: str) -> LocalFolder:
    """Return a folder with a backup that has what tells whose it is, with values of the manifest changed."""
    said = {"made_by": "shipway-backup", "cluster": "te", "files": {}, "kubelet": "Kubernetes v1.31.7", **changes}
    own = folder / "te" / NEW
    texts = {
        "manifest.json": json.dumps(said),
        "files/etc/kubernetes/pki/ca.crt": CA,
        "files/etc/kubernetes/admin.conf": "    server: https://127.0.0.1:6443\n  current-context: admin@te\n",
        "files/etc/kubernetes/manifests/kube-controller-manager.yaml": "    - --cluster-name=te\n",
        "files/etc/kubernetes/manifests/kube-apiserver.yaml": "    - --advertise-address=10.9.0.7\n",
        "kubeadm-config.yaml": "    controlPlaneEndpoint: api.te.internal:6443\n",
    }
    for path, text in texts.items():
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).write_text(text)
    return LocalFolder(folder, "te")


async def fits(folder: Path, *, bare: bool, seen: dict[str, Evidence], more: str = "") -> Run:
    """Ask whether the backup of a folder fits a host; return the run."""
    text = f"{FILE}state_dir: {folder}/state\nbackup: {{keep_local: {folder}}}\n{more}"
    run = Run(parse_cluster(text), "restore")
    run.seen.surveys = {name: SimpleNamespace(evidence=one) for name, one in seen.items()}  # type: ignore[assignment]
    choice = Choice("cp1", NEW, "id", begun=False, brought=True, kinds={"cp1": "bare" if bare else "runs"})
    assert await BackupFits(run, choice).check(cast("Host", Telling(None))) is None
    return run


def worker(ca: frozenset[str]) -> Evidence:
    return Evidence("w1", certificate=True, kubelet_conf=True, authorities=ca, node="w1")


async def test_the_backup_of_the_workers_own_cluster_may_come_to_a_bare_host(tmp_path: Path) -> None:
    copy_of(tmp_path)
    seen = {"cp1": Evidence("cp1"), "w1": worker(authorities(CA))}
    run = await fits(tmp_path, bare=True, seen=seen)
    assert run.cluster.endpoint == "api.te.internal:6443"


async def test_a_cluster_that_has_its_control_planes_address_keeps_it(tmp_path: Path) -> None:
    own = copy_of(tmp_path).own / NEW
    (own / "kubeadm-config.yaml").write_text("    controlPlaneEndpoint: 192.0.2.1:6443\n")
    run = await fits(tmp_path, bare=True, seen={"cp1": Evidence("cp1")})
    assert run.cluster.endpoint == "192.0.2.1:6443"


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("version", "SHW-734"),
        ("sealed", "SHW-814"),
        ("workers", "SHW-309"),
        ("name", "SHW-319"),
        ("kept", "SHW-320"),
        ("authority", "SHW-734"),
        ("cluster", "SHW-731"),
    ],
)
async def test_a_backup_that_does_not_fit_is_refused_before_anything_is_changed(
    tmp_path: Path, case: str, code: str
) -> None:
    changes = {"version": {"kubelet": "Kubernetes v1.19.0"}, "sealed": {"encryption": "/etc/kubernetes/enc.yaml"}}
    changes["cluster"] = {"cluster": "other"}
    own = copy_of(tmp_path, **changes.get(case, {})).own / NEW
    seen = {"cp1": Evidence("cp1"), "w1": worker(authorities(CA))}
    if case == "workers":
        seen["w1"] = worker(frozenset({"sha256:other"}))
    elif case == "name":
        (own / "files/etc/kubernetes/manifests/kube-controller-manager.yaml").write_text("    - --cluster-name=ot\n")
    elif case == "kept":
        (tmp_path / "state" / "te").mkdir(parents=True)
        (tmp_path / "state" / "te" / "kubeconfig").write_text("no kubeconfig\n")
    elif case == "authority":
        seen["cp1"] = Evidence("cp1", admin=True, authorities=frozenset({"sha256:other"}))
    with pytest.raises(ShipwayError) as caught:
        await fits(tmp_path, bare=case != "authority", seen=seen)
    assert caught.value.code == code


async def test_a_key_that_the_file_declares_as_well_comes_with_the_backup(tmp_path: Path) -> None:
    copy_of(tmp_path, encryption=ENCRYPTION)
    more = "hardening: {encryption_at_rest: true}\n"
    await fits(tmp_path, bare=True, seen={"cp1": Evidence("cp1")}, more=more)
