"""Which machine goes for the one of the file, and what forbids that: found on both, never taken for granted."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shipway.cluster.model import node_ip
from shipway.edits.lines import hosts_file
from shipway.errors import Blocked, ErrorReport, Refused, ShipwayError, Unreachable
from shipway.facts.files import FileText
from shipway.ownership.evidence import Evidence
from shipway.steps.kubernetes.etcd_members import Member
from shipway.steps.reset.kubelet import RESETTING
from shipway.steps.system.names import HOSTS
from tasks.context import Run
from tasks.replace import allowed, sides
from tasks.replace.allowed import may_replace, stays
from tasks.replace.sides import forget_old, keep_old, machine_that_goes, tell_not_reset
from tasks.retire import allowed as removal
from tests.ownership.test_leading import A, B, cluster, plane
from tests.places.facts import DEBIAN, KnownFacts
from tests.retire.objects import Objects, node

NEW, OLD = "10.9.0.9", "10.9.0.7"
BARE = Evidence("w1")
ITSELF = Evidence("w1", kubelet_conf=True, certificate=True, authorities=A, node="w1")
MARK = FileText(RESETTING)


class Machine(KnownFacts):
    """A machine that counts how often it was asked anew."""

    def __init__(self, address: str) -> None:
        super().__init__({})
        self.address, self.forgotten = address, 0

    def forget(self) -> None:
        """Be asked anew."""
        self.forgotten += 1


class World:
    """The machines by their addresses, and the nodes of the cluster."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.shown, self.kept = run, dict[str, Any](), dict[str, Machine]()
        self.faults, self.asked_anew = list[ErrorReport](), 0
        self.members = [Member(str(n), f"cp{n}", (f"https://10.9.0.{n}:2380",), healthy=True) for n in (1, 2, 3)]

        async def disagreement(_: Run) -> list[ErrorReport]:
            return self.faults

        async def evidence(session: Any) -> Evidence:
            found = self.shown.get(session.address, Unreachable("silent"))
            if isinstance(found, Unreachable):
                raise found
            assert isinstance(found, Evidence)
            return found

        async def members(_: Any) -> list[Member]:
            return self.members

        monkeypatch.setattr(allowed, "disagreement", disagreement)
        monkeypatch.setattr(allowed, "authorities_of", lambda _: A)
        monkeypatch.setattr(sides, "evidence", evidence)
        monkeypatch.setattr(allowed, "members_of", members)
        monkeypatch.setattr(run, "session", self.session)
        self.calls("w1", OLD)
        self.nodes(w1=OLD)

    def session(self, name: str) -> Any:
        """Return the session of the machine that the run is about."""
        return self.at(self.run.cluster.host(name).address)

    def at(self, address: str) -> Any:
        """Return the machine at an address."""
        if address not in self.kept:
            self.kept[address] = Machine(address)
        return self.kept[address]

    def calls(self, host: str, address: str) -> None:
        """Let the leading control plane call a host by an address."""
        self.at("10.9.0.1").facts[FileText(HOSTS)] = hosts_file("", {host: address})

    def comes(self, seen: Evidence) -> None:
        """Let preflight have seen this on the machine of the file."""
        self.run.seen.surveys[seen.host] = SimpleNamespace(evidence=seen)  # type: ignore[assignment]

    def nodes(self, **addresses: str) -> None:
        """Let the cluster have these nodes."""

        def made(name: str, address: str) -> Any:
            one = node(name)
            one["status"]["addresses"] = [{"type": "InternalIP", "address": address}]
            return one

        class Cluster(Objects):
            def forget(_) -> None:  # noqa: N805 - the world's is the other
                """Be asked anew."""
                self.asked_anew += 1

        async def kube() -> Any:
            return Cluster(*(made(name, address) for name, address in addresses.items()))

        self.run.kube = kube  # type: ignore[method-assign]

    async def codes(self) -> list[str]:
        """Return the codes of all that forbids it."""
        host = self.run.retirement.host
        errors = [one.error for one in await may_replace(self.run, "may_replace", host) if one.error]
        assert all(one.host == host and one.fix for one in errors)
        return [one.code for one in errors]

    @property
    def goes(self) -> str:
        """The address of the machine that goes, "" where none does."""
        old = self.run.replacement.old
        return old.host(self.run.retirement.host).address if old else ""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return made(monkeypatch, "w1")


def made(monkeypatch: pytest.MonkeyPatch, host: str) -> World:
    run = Run(cluster(), "bootstrap", (host,))
    run.kind, run.retirement.host, run.lead = "replace", host, "cp1"
    return World(run, monkeypatch)


async def test_the_machine_at_the_nodes_own_address_goes_for_a_bare_one(world: World) -> None:
    world.comes(BARE)
    world.run.seen.families["w1"] = DEBIAN
    assert await world.codes() == []
    assert (world.goes, world.run.replacement.itself, world.run.replacement.known) == (OLD, False, False)
    new = world.run.cluster
    with machine_that_goes(world.run):
        assert node_ip(world.run.cluster.host("w1")) == OLD
        assert {"w1"}.isdisjoint({*world.run.seen.surveys, *world.run.seen.families}), "seen of the other machine"
    assert world.run.cluster is new
    assert world.run.seen.surveys["w1"].evidence is BARE
    assert world.run.seen.families["w1"] is DEBIAN
    assert world.run.replacement.old is not None
    assert [one.address for one in world.run.replacement.old.hosts] == [*(f"10.9.0.{n}" for n in (1, 2, 3)), OLD]
    anew = [world.at(address).forgotten for address in ("10.9.0.1", OLD)]
    assert (anew, world.asked_anew) == ([1, 1], 1), "and nothing is taken from an older look"


async def test_without_a_machine_that_goes_nobody_is_about_it(world: World) -> None:
    with pytest.raises(LookupError), machine_that_goes(world.run):
        pass


async def test_an_address_that_is_given_leads_to_the_machine_and_its_member_is_the_nodes(world: World) -> None:
    world.comes(BARE)
    world.run.replacement.address = "192.0.2.9:2222"
    assert await world.codes() == []
    assert world.run.replacement.old is not None
    there = world.run.replacement.old.host("w1")
    assert (there.address, there.ssh.port, node_ip(there)) == ("192.0.2.9", 2222, OLD)


@pytest.mark.parametrize(
    "seen",
    [
        Evidence("w1", certificate=True, authorities=A, node="w2"),
        Evidence("w1", certificate=True, authorities=B, node="w1"),
        Evidence("w1", running=True, pods=("default/web",)),
        Evidence("w1", kubelet_conf=True, authorities=B),
        plane("w1", node="cp9"),
        Evidence("w1", certificate=True, authorities=A),
        Evidence("w1", admin=True, joining=True, certificate=True, authorities=A, node="w2"),
    ],
    ids=[
        "another node",
        "another cluster's",
        "pods of nobody knows whom",
        "a join to another cluster",
        "a control plane",
        "a node that does not tell its name",
        "a join of another node",
    ],
)
async def test_no_machine_that_is_in_use_takes_a_hosts_place(world: World, seen: Evidence) -> None:
    world.comes(seen)
    assert await world.codes() == ["SHW-718"]


async def test_what_contradicts_the_file_is_named_beside_it(world: World) -> None:
    world.comes(Evidence("w1", certificate=True, authorities=A, node="w2"))
    world.faults = [ErrorReport("w1", "the file and the hosts agree", "SHW-321", "it is w2", "a fix", retryable=False)]
    assert await world.codes() == ["SHW-321", "SHW-718"]


@pytest.mark.parametrize(
    ("lead", "faulty", "code"), [("cp1", True, "SHW-318"), ("w1", False, "SHW-718"), ("cp1", False, "SHW-500")]
)
async def test_where_the_api_cannot_be_asked_the_cause_is_told_first(
    world: World,
    lead: str,
    faulty: bool,  # noqa: FBT001 - a table
    code: str,
) -> None:
    """The only control plane's machine is to be another one: it holds no admin.conf, and a bootstrap would not help."""

    async def kube() -> Any:
        raise Blocked("no admin.conf", code="SHW-500")

    world.run.kube, world.run.lead = kube, lead  # type: ignore[method-assign]
    fault = ErrorReport("cp1", "the file and the hosts agree", "SHW-318", "it holds none", "a fix", retryable=False)
    world.faults = [fault] if faulty else []
    with pytest.raises(ShipwayError) as raised:
        await world.codes()
    assert raised.value.code == code


async def test_the_host_itself_stays_unless_it_is_to_be_made_anew(world: World) -> None:
    world.nodes(w1=NEW)
    world.calls("w1", NEW)
    world.comes(ITSELF)
    assert await world.codes() == []
    assert (stays(world.run), world.goes, world.run.replacement.known) == (True, "", True)
    world.run.replacement.remake = True
    assert await world.codes() == []
    assert (stays(world.run), world.goes) == (False, NEW)
    world.run.replacement.address = "192.0.2.9"
    assert await world.codes() == ["SHW-718"], "the machine that goes is named twice"


async def test_another_machine_is_not_made_anew(world: World) -> None:
    world.comes(BARE)
    world.run.replacement.remake = True
    assert await world.codes() == ["SHW-718"]
    world.nodes()
    world.shown[OLD] = BARE
    assert await world.codes() == [], "a run was broken off once it was reset"
    assert world.goes == ""
    world.shown[OLD] = ITSELF
    assert (await world.codes(), world.goes) == ([], OLD), "or before"
    assert node_ip((world.run.replacement.old or world.run.cluster).host("w1")) == OLD


async def test_what_was_not_seen_is_not_said_to_be_another_machine(world: World) -> None:
    world.run.replacement.remake = True
    assert await world.codes() == []
    world.nodes(w1=NEW)
    assert await world.codes() == []
    assert world.goes == ""


async def test_certificates_that_an_init_left_make_no_machine_the_node(world: World) -> None:
    world.comes(Evidence("w1", pki=True))
    world.shown[OLD] = Evidence("w1", pki=True)
    assert await world.codes() == ["SHW-719"]


async def test_a_join_that_broke_off_goes_on(world: World) -> None:
    world.nodes()
    for seen in (
        Evidence("w1", kubelet_conf=True, authorities=A),
        Evidence("w1", admin=True, joining=True, authorities=A),
    ):
        world.comes(seen)
        assert await world.codes() == []
        assert stays(world.run)


async def test_a_bare_machine_at_the_nodes_own_address_needs_a_persons_word(world: World) -> None:
    world.nodes(w1=NEW)
    world.comes(BARE)
    assert await world.codes() == ["SHW-719"]
    world.run.retirement.dead = True
    assert await world.codes() == []
    assert world.run.retirement.displaced
    assert world.goes == NEW


@pytest.mark.parametrize(
    ("there", "codes"),
    [
        (ITSELF, []),
        (BARE, ["SHW-719"]),
        (Evidence("w1", certificate=True, authorities=A, node="w2"), ["SHW-719"]),
        (Evidence("w1", certificate=True, authorities=B), ["SHW-719"]),
        (Evidence("w1", running=True, pods=("default/web",)), []),
        (Unreachable("silent"), []),
    ],
    ids=["itself", "bare", "another node", "another cluster's", "the removal tells", "the removal tells too"],
)
async def test_a_machine_that_has_got_the_address_of_the_one_that_goes_is_not_taken_for_it(
    world: World, there: Any, codes: list[str]
) -> None:
    world.comes(BARE)
    world.shown[OLD] = there
    assert await world.codes() == codes
    assert world.run.retirement.displaced == bool(codes)
    world.run.retirement.dead = True
    assert await world.codes() == []
    assert world.goes == OLD


@pytest.mark.parametrize(
    ("nodes", "codes"),
    [({"w1": OLD}, []), ({"w1": "10.9.0.8"}, ["SHW-718"]), ({"w1": NEW}, ["SHW-718"]), ({}, ["SHW-718"])],
    ids=["the same", "another one", "this one", "none"],
)
async def test_asked_again_the_machine_that_goes_is_still_the_one_that_was_agreed_on(
    world: World, nodes: dict[str, str], codes: list[str]
) -> None:
    """Another run, or a person, has taken it out meanwhile; a third machine may have joined under its name."""
    world.comes(BARE)
    assert await world.codes() == []
    world.run.replacement.agreed = world.run.replacement.old
    world.nodes(**nodes)
    world.run.retirement.dead = True  # whatever else would forbid it
    assert await world.codes() == codes


async def test_where_the_machine_was_is_kept_until_it_is_reset(world: World, tmp_path: Path) -> None:
    """A drift pass between two tries lets the leading control plane's /etc/hosts name the new machine."""
    world.run.cluster = world.run.cluster.model_copy(update={"state_dir": str(tmp_path)})
    world.comes(BARE)
    world.run.replacement.address = "192.0.2.9:2222"
    assert await world.codes() == []
    keep_old(world.run)
    (note,) = (tmp_path / "te").iterdir()
    assert (note.name, note.stat().st_mode & 0o777) == ("replaced-w1", 0o600)
    world.nodes()
    world.calls("w1", NEW)
    world.run.replacement.address, world.shown["192.0.2.9"] = "", ITSELF
    for _ in range(2):  # what was found by the note is kept again
        assert await world.codes() == []
        assert world.run.replacement.old is not None
        there = world.run.replacement.old.host("w1")
        assert (there.address, there.ssh.port, node_ip(there)) == ("192.0.2.9", 2222, OLD)
        keep_old(world.run)
    world.shown["192.0.2.9"] = Unreachable("silent")
    assert (await world.codes(), world.goes) == ([], "")
    world.run.retirement.left.clear()
    tell_not_reset(world.run)
    (told,) = world.run.retirement.left
    assert told.startswith("the machine at 192.0.2.9:2222 was w1 before and was not reset")
    world.shown["192.0.2.9"], world.run.mode = BARE, "plan"
    assert (await world.codes(), world.goes, note.exists()) == ([], "", True)
    world.run.mode = "bootstrap"
    assert (await world.codes(), world.goes, note.exists()) == ([], "", False), "what it shows decides"
    note.write_text(f"{NEW} {OLD}\n")
    world.shown[NEW] = ITSELF
    assert (await world.codes(), world.goes) == ([], ""), "the machine of the file goes for none"
    note.write_text("no note")
    tell_not_reset(world.run)
    assert len(world.run.retirement.left) == 1
    assert (await world.codes(), world.goes) == ([], "")
    forget_old(world.run)
    forget_old(world.run)
    assert list((tmp_path / "te").iterdir()) == []


async def test_of_what_stays_or_is_gone_nothing_is_kept_and_without_room_nothing_is_taken_out(
    world: World, tmp_path: Path
) -> None:
    world.run.cluster = world.run.cluster.model_copy(update={"state_dir": str(tmp_path)})
    keep_old(world.run)
    world.comes(BARE)
    assert await world.codes() == []
    world.run.retirement.dead = True
    keep_old(world.run)
    world.run.retirement.dead, world.run.replacement.itself = False, True
    keep_old(world.run)
    there = tmp_path / "te"
    assert not there.exists()
    world.run.replacement.itself = False
    there.write_text("no folder")
    with pytest.raises(Refused) as raised:
        keep_old(world.run)
    assert raised.value.code == "SHW-341"


async def test_what_was_displaced_at_the_look_before_is_looked_at_anew(world: World) -> None:
    world.comes(BARE)
    world.shown[OLD] = BARE
    assert await world.codes() == ["SHW-719"]
    world.shown[OLD] = ITSELF
    assert (await world.codes(), world.run.retirement.displaced) == ([], False)


async def test_the_address_of_the_file_is_no_address_of_the_machine_that_goes(world: World) -> None:
    world.comes(BARE)
    world.run.replacement.address = NEW
    assert await world.codes() == ["SHW-719"]
    world.run.retirement.dead = True
    (error,) = [one.error for one in await may_replace(world.run, "may_replace", "w1") if one.error]
    assert (error.code, "which --address names" in error.message) == ("SHW-719", True), "its own may live elsewhere"
    assert OLD in error.fix
    world.run.replacement.address = ""
    assert await world.codes() == []


async def test_a_node_that_has_the_new_machines_address_may_be_elsewhere_by_now(world: World) -> None:
    world.nodes(w1=NEW)
    world.comes(BARE)
    world.run.replacement.address, world.shown["192.0.2.9"] = "192.0.2.9", ITSELF
    assert await world.codes() == []
    assert (world.goes, world.run.retirement.displaced) == ("192.0.2.9", False)


async def test_a_machine_is_told_by_its_nodes_address_where_the_file_has_a_name(world: World) -> None:
    world.nodes(w1=NEW)
    world.comes(BARE)
    world.run.cluster = moved(world.run, "w1", "w1.example")
    hosts = [
        one.model_copy(update={"node_ip": IPv4Address(NEW)}) for one in world.run.cluster.hosts if one.name == "w1"
    ]
    world.run.cluster = world.run.cluster.model_copy(update={"hosts": (*world.run.cluster.hosts[:3], *hosts)})
    assert await world.codes() == ["SHW-719"]


async def test_what_a_person_calls_the_machine_that_goes_is_left_to_the_removal_where_the_node_is_gone(
    world: World,
) -> None:
    world.nodes()
    world.comes(BARE)
    world.run.replacement.address, world.shown["192.0.2.9"] = "192.0.2.9", BARE
    assert await world.codes() == []
    assert (world.goes, world.run.retirement.displaced) == ("192.0.2.9", False)


async def test_a_reset_that_has_begun_at_the_nodes_address_is_the_hosts_own(world: World) -> None:
    world.comes(BARE)
    world.shown[OLD] = BARE
    world.at(OLD).facts[MARK] = "node\n"
    assert await world.codes() == []
    assert not world.run.retirement.displaced


async def test_what_answers_at_the_address_of_a_displaced_machine_is_not_taken_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def looked(*_: Any) -> None:
        pytest.fail("the machine that comes was looked at as the one that goes")

    monkeypatch.setattr(removal, "look_at", looked)
    run = world.run
    run.retirement.displaced = run.retirement.dead = True
    monkeypatch.setattr(removal, "authorities_of", lambda _: A)
    world.nodes(w1=NEW, cp1="10.9.0.1")
    errors = [one.error for one in await removal.may_remove(run, "may_remove", "w1") if one.error]
    assert [one.code for one in errors] == ["SHW-709"], "its node is Ready here; that it is silent was not doubted"


async def test_a_machine_that_nobody_could_look_at_is_not_taken_for_another_one(world: World) -> None:
    world.nodes(w1=NEW)
    assert await world.codes() == [], "preflight has named it"
    assert not world.run.retirement.displaced


async def test_where_the_node_is_gone_the_control_planes_hosts_file_leads_to_a_machine_that_is_still_it(
    world: World,
) -> None:
    world.nodes()
    world.comes(BARE)
    world.shown[OLD] = ITSELF
    assert await world.codes() == []
    assert world.goes == OLD
    world.shown[OLD] = Evidence("w1", pki=True)
    world.at(OLD).facts[MARK] = "node\n"
    assert await world.codes() == []
    assert world.goes == OLD, "a reset of ours has begun there"
    assert world.run.retirement.left == []


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (BARE, ""),
        (Evidence("w1", certificate=True, authorities=B, node="w1"), "is not w1 any more, and stays as it is"),
        (Evidence("w1", certificate=True, authorities=A, node="w2"), "is not w1 any more, and stays as it is"),
        (Evidence("w1", running=True), "is not w1 any more, and stays as it is"),
        (Unreachable("no route"), "was not looked at, nor reset: no route"),
    ],
)
async def test_any_other_machine_there_is_left_alone_and_told_of(world: World, shown: Any, said: str) -> None:
    world.nodes()
    world.comes(BARE)
    world.shown[OLD] = shown
    assert await world.codes() == []
    assert world.goes == ""
    assert [said in one for one in world.run.retirement.left] == ([True] if said else [])


async def test_a_reset_that_has_begun_on_the_machine_of_the_file_goes_on_only_where_the_node_is_gone(
    world: World,
) -> None:
    world.at(NEW).facts[MARK] = "node\n"
    world.comes(BARE)
    assert await world.codes() == ["SHW-718"], "the node is another machine's, which would be drained for it"
    world.nodes()
    assert await world.codes() == []
    assert world.goes == NEW
    world.comes(Evidence("w1", pki=True, authorities=A))
    assert await world.codes() == []
    world.comes(Evidence("w1", pki=True, authorities=B))
    assert await world.codes() == ["SHW-718"], "of another cluster"


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (lambda members: members, []),
        (lambda members: [one for one in members if one.name != "cp3"], []),
        (lambda members: [one for one in members if one.name != "cp2"], ["SHW-718"]),
        (lambda members: [*members[:1], _ill(members[1]), members[2]], ["SHW-718"]),
        (lambda members: [*members[:2], _ill(members[2])], []),
    ],
    ids=["all are whole", "it has left", "they would be even", "another is not healthy", "its own is not healthy"],
)
async def test_a_control_plane_is_replaced_only_where_etcd_takes_another_member(
    monkeypatch: pytest.MonkeyPatch, change: Any, codes: list[str]
) -> None:
    world = made(monkeypatch, "cp3")
    world.nodes(cp1="10.9.0.1", cp2="10.9.0.2", cp3="10.9.0.3")
    world.calls("cp3", "10.9.0.3")
    world.run.cluster = moved(world.run, "cp3", "10.9.0.33")
    world.comes(Evidence("cp3"))
    world.members = change(world.members)
    assert await world.codes() == codes
    assert world.goes == "10.9.0.3"


async def test_a_member_that_never_started_is_known_by_the_address_of_either_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = made(monkeypatch, "cp3")
    world.run.cluster = moved(world.run, "cp3", "10.9.0.33")
    world.comes(Evidence("cp3"))
    for address, there in (("10.9.0.3", {"cp3": "10.9.0.3"}), ("10.9.0.33", {})):
        world.nodes(cp1="10.9.0.1", cp2="10.9.0.2", **there)
        world.members[2] = Member("3", "", (f"https://{address}:2380",), learner=True)
        assert await world.codes() == []
    assert world.at("10.9.0.1").forgotten == 5, "its etcd twice, and its /etc/hosts, of one that is gone twice"


async def test_one_that_only_joins_is_held_to_the_rule_and_one_that_stays_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = made(monkeypatch, "cp3")
    world.calls("cp3", "10.9.0.3")
    world.nodes(cp1="10.9.0.1")
    world.members = world.members[:1]
    world.comes(Evidence("cp3"))
    assert await world.codes() == ["SHW-718"]
    world.nodes(cp1="10.9.0.1", cp3="10.9.0.3")
    world.comes(plane("cp3"))
    assert await world.codes() == []


def _ill(member: Member) -> Member:
    return Member(member.id, member.name, member.peers)


def moved(run: Run, host: str, address: str) -> Any:
    """Return the cluster of a file that names another machine at a host."""
    hosts = tuple(one.model_copy(update={"address": address}) if one.name == host else one for one in run.cluster.hosts)
    return run.cluster.model_copy(update={"hosts": hosts})


async def test_the_only_control_plane_that_serves_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    world = made(monkeypatch, "cp1")
    world.nodes(cp1="10.9.0.1")
    world.calls("cp1", "10.9.0.1")
    world.comes(plane("cp1"))
    world.run.replacement.remake = True
    assert await world.codes() == ["SHW-718"]
