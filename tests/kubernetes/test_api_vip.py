"""The address for clients outside: who may hold it, what keepalived is told, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.errors import Blocked, Permanent, Refused, Unreachable
from shipway.facts.fact import Fact
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.kubeadm.config import init_documents
from shipway.script import Output
from shipway.step import Drift, Impact, Outcome, StepResult
from shipway.steps.endpoint.certificate import NAMES, CertificateGood, certified, names_of
from shipway.steps.kubernetes.etcd_members import MEMBERS
from shipway.steps.system.own_service import OwnGone, OwnUnitRead
from shipway.steps.vip import held as held_module
from shipway.steps.vip import listed
from shipway.steps.vip.held import VipFree, VipHeld, neighbour, told_otherwise
from shipway.steps.vip.keepalived import (
    CLIENT,
    CONFIG,
    OWN,
    UNIT_TEXT,
    VipConfigured,
    config_of,
    left_script,
    peers_in,
    ready_script,
    router_id,
)
from shipway.steps.vip.listed import may_hold
from shipway.steps.vip.network import Interfaces, VipInNetwork, holds
from shipway.survey.first_look import ADDRESSES
from tasks import table
from tasks.context import Run
from tasks.drift.parts import cluster_parts
from tasks.kubeconfig import keep_kubeconfig
from tasks.retire.work import without
from tasks.stage_result import errors_of
from tests.ownership.test_leading import NAME, cluster
from tests.places.facts import DEBIAN, KnownFacts, said, unit

VIP = "10.9.0.200"
ETH0 = Interfaces("eth0", "eth0")
SHOWN = (
    "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n"
    "2: eth0    inet 10.9.0.{n}/24 brd 10.9.0.255 scope global eth0\\       valid_lft forever preferred_lft forever\n"
    "3: ib0    inet 10.8.0.{n}/16 brd 10.8.255.255 scope global ib0\\       valid_lft forever preferred_lft forever\n"
)
HELD = f"2: eth0    inet {VIP}/32 scope global eth0\\       valid_lft forever preferred_lft forever\n"


def with_vip(planes: int = 3, **more: Any) -> Cluster:
    vip = {"address": VIP, **more}
    text = ", ".join(f"{key}: {value}" for key, value in vip.items())
    return cluster(planes, f"kubernetes: {{api_vip: {{{text}}}}}\n")


def host(number: int = 1, more: str = "", **facts: Any) -> KnownFacts:
    made = KnownFacts({ADDRESSES: said(SHOWN.format(n=number) + more), **facts.get("facts", {})})
    made.name = f"cp{number}"
    return made


OURS = FileText(CONFIG)


class Away(KnownFacts):
    """A host that does not answer."""

    async def read(self, *_: Fact[Any]) -> Any:
        """Raise."""
        raise Unreachable("no answer")


def quiet(one: KnownFacts) -> KnownFacts:
    """Return a host that forgets nothing, for it knows nothing by itself."""
    one.forget = lambda: None  # type: ignore[attr-defined]
    return one


# --- what is told


def test_keepalived_is_told_of_its_peers_alone_and_nobody_takes_the_address_from_who_has_it() -> None:
    made = with_vip()
    texts = [config_of(made, one, ETH0) for one in made.control_planes]
    for number, text in enumerate(texts, 1):
        assert f"unicast_src_ip 10.9.0.{number}\n" in text
        peers = text.partition("unicast_peer {")[2].partition("}")[0].split()
        assert peers == [f"10.9.0.{other}" for other in (1, 2, 3) if other != number]
        assert ("state BACKUP\n    nopreempt\n" in text, f"        {VIP}/32 dev eth0\n" in text) == (True, True)
        assert ("interface eth0\n" in text, "track_interface" in text) == (True, False)
        assert "vrrp_check_unicast_src" in text
    priorities = [int(text.partition("priority ")[2].split()[0]) for text in texts]
    assert priorities == sorted(priorities, reverse=True)
    assert max(priorities) < 255  # that one would own it, and take it back (RFC 3768, 6.1)


def test_one_that_is_alone_sends_to_nobody_for_without_a_peer_keepalived_sends_to_all() -> None:
    assert peers_in(config_of(with_vip(1), with_vip(1).hosts[0], ETH0)) == ["127.0.0.1"]


def test_they_hear_each_other_by_their_own_addresses_whichever_network_the_address_is_in() -> None:
    text = config_of(with_vip(), with_vip().hosts[0], Interfaces("eth0", "ib0"))
    assert "    interface eth0\n" in text
    assert f"{VIP}/32 dev ib0\n" in text
    assert "    track_interface {\n        ib0\n    }\n" in text


@pytest.mark.parametrize(("more", "number"), [({}, 200), ({"router_id": 7}, 7)])
def test_the_routers_number_is_the_files_or_the_addresss_last(more: dict[str, Any], number: int) -> None:
    assert router_id(with_vip(**more)) == number
    assert f"virtual_router_id {number}\n" in config_of(with_vip(**more), with_vip().hosts[0], ETH0)


def test_an_address_that_ends_with_zero_has_a_number_that_is_allowed() -> None:
    made = parse_cluster("name: te\nhosts: [10.9.0.1]\nkubernetes: {api_vip: {address: 10.9.1.0}}\n")
    assert router_id(made) == 1


@pytest.mark.parametrize(("code", "status"), [("200", 0), ("401", 0), ("403", 0), ("500", 1), ("000", 1), ("", 1)])
def test_a_host_may_hold_it_while_its_own_api_server_says_that_it_is_ready(
    tmp_path: Path, code: str, status: int
) -> None:
    asked = tmp_path / "asked"
    curl = tmp_path / "curl"
    curl.write_text(f'#!/bin/sh\necho "$@" > {asked}\nprintf %s "{code}"\n')
    curl.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(("sh", "-c", ready_script(7443)), env=env, check=False).returncode == status
    assert "https://127.0.0.1:7443/readyz" in asked.read_text()
    assert "--cert" not in asked.read_text()


def test_it_asks_by_a_certificate_where_there_is_one(tmp_path: Path) -> None:
    asked, pair = tmp_path / "asked", tmp_path / "client"
    (tmp_path / "curl").write_text(f'#!/bin/sh\necho "$@" > {asked}\nprintf 200\n')
    (tmp_path / "curl").chmod(0o755)
    for end in ("crt", "key"):
        pair.with_suffix(f".{end}").touch()
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ready_script(6443).replace(CLIENT, str(pair))
    assert subprocess.run(("sh", "-c", script), env=env, check=False).returncode == 0
    assert f"--cert {pair}.crt --key {pair}.key https://127.0.0.1:6443/readyz" in asked.read_text()


def test_the_address_goes_with_a_keepalived_that_was_killed(tmp_path: Path) -> None:
    done, ip = tmp_path / "done", tmp_path / "ip"
    ip.write_text(
        f'#!/bin/sh\necho "$@" >> {done}\n[ "$1" != -o ] || echo "2: eth0    inet {VIP}/32 scope global eth0"\n'
    )
    ip.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(("sh", "-c", left_script(VIP)), env=env, check=False).returncode == 0
    assert done.read_text().splitlines() == [
        f"-o -4 addr show to {VIP}/32",
        f"addr del {VIP}/32 dev eth0",
    ]
    assert "\nExecStopPost=-/var/lib/shipway/api-vip/left\n" in UNIT_TEXT
    assert UNIT_TEXT.index("StartLimitIntervalSec=0") < UNIT_TEXT.index("[Service]")  # it is tried for ever


async def test_the_interface_is_that_of_the_addresss_network_or_the_files() -> None:
    made = with_vip()
    await VipConfigured(made, made.hosts[0]).apply(one := host())  # type: ignore[arg-type]
    assert "interface eth0\n" in one.written[CONFIG]
    await VipConfigured(made, made.hosts[0]).apply(held := host(more=HELD))  # type: ignore[arg-type]
    assert held.written == one.written
    other = parse_cluster("name: te\nhosts: [10.9.0.1]\nkubernetes: {api_vip: {address: 10.8.3.3}}\n")
    await VipConfigured(other, other.hosts[0]).apply(second := host())  # type: ignore[arg-type]
    assert "10.8.3.3/32 dev ib0\n" in second.written[CONFIG]
    assert "    interface eth0\n" in second.written[CONFIG]
    named = with_vip(interface="eth0")
    assert await VipInNetwork(named, named.hosts[0]).check(host()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        *({"address": address} for address in ("10.7.0.9", "10.9.0.0", "10.9.0.255")),
        *({"interface": name} for name in ("ib0", "eth7")),
    ],
)
async def test_an_address_of_no_network_of_the_host_is_refused_with_those_it_has(more: dict[str, Any]) -> None:
    made = with_vip(**more)
    with pytest.raises(Permanent) as raised:
        await VipInNetwork(made, made.hosts[0]).check(host(more=HELD))  # type: ignore[arg-type]
    assert raised.value.code == "SHW-841"
    assert "eth0 10.9.0.1/24" in raised.value.message


async def test_a_host_whose_own_address_is_on_no_interface_is_told() -> None:
    with pytest.raises(Permanent, match=r"no interface of this host has its own address 10\.9\.0\.1 \(it has eth0"):
        await VipInNetwork(with_vip(), with_vip().hosts[0]).check(host(4))  # type: ignore[arg-type]


# --- two that do not hear each other would both hold it


def members(*numbers: int) -> dict[Any, Any]:
    rows = [{"ID": str(one), "name": f"cp{one}", "peerURLs": [f"https://10.9.0.{one}:2380"]} for one in numbers]
    return {MEMBERS: said(json.dumps({"members": rows}))}


@pytest.mark.parametrize(
    ("facts", "peers"),
    [
        (members(1, 2, 3), ["10.9.0.2", "10.9.0.3"]),
        (members(1, 2), ["10.9.0.2"]),
        ({}, ["10.9.0.2", "10.9.0.3"]),  # etcd does not say
    ],
)
async def test_one_that_the_file_does_not_name_any_more_stays_a_peer_while_it_is_a_member(
    facts: dict[Any, Any], peers: list[str]
) -> None:
    fewer = without(with_vip(), "cp3")
    here = host(facts={OURS: config_of(with_vip(), with_vip().hosts[0], ETH0), **facts})
    await VipConfigured(fewer, fewer.hosts[0]).apply(here)  # type: ignore[arg-type]
    assert peers_in(here.written[CONFIG]) == peers


async def test_none_is_told_of_it_before_those_that_hold_it_hear_of_this_one() -> None:
    made, before = with_vip(), without(with_vip(), "cp1")
    old, new = (config_of(one, made.hosts[1], ETH0) for one in (before, made))
    step = VipConfigured(made, made.hosts[0], (quiet(host(2, facts={OURS: old})), quiet(host(3))))
    with pytest.raises(Blocked, match="cp2 would not hear of this host"):
        await step.apply(here := host())  # type: ignore[arg-type]
    assert here.written == {}
    for peers in ((quiet(host(2, facts={OURS: new})), quiet(host(3))), (quiet(Away({})),)):
        await VipConfigured(made, made.hosts[0], peers).apply(here := host())  # type: ignore[arg-type]
        assert CONFIG in here.written


async def test_while_some_are_told_of_another_virtual_router_nobody_waits_for_one_that_holds_it() -> None:
    made = with_vip()
    for other, yes in ((made, False), (with_vip(router_id=9), True), (with_vip(address="10.9.0.201"), True)):
        planes = (quiet(host(1)), quiet(Away({})), quiet(host(2, facts={OURS: config_of(other, made.hosts[1], ETH0)})))
        assert await told_otherwise(made, planes) is yes  # type: ignore[arg-type]


def test_what_no_address_is_holds_none() -> None:
    assert not holds("2: eth0    inet 10.9.0.999/24 x\n2: eth0    inet\nnonsense\n", "10.9.0.999")
    assert holds(HELD, VIP)


# --- who has it


ANSWERS = f"{VIP} dev eth0 lladdr 02:42:ac:1e:05:0d REACHABLE"
TOLD = config_of(with_vip(), with_vip().hosts[1], ETH0)


async def code_of(here: KnownFacts, *peers: KnownFacts) -> str:
    try:
        await VipFree(with_vip(), peers).check(here)  # type: ignore[arg-type]
    except (Blocked, Refused, Unreachable) as error:
        return error.code
    return ""


async def test_an_address_that_somebody_else_answers_for_is_refused() -> None:
    asked = {neighbour(VIP): said(ANSWERS)}
    assert await code_of(host(facts={neighbour(VIP): said("")})) == Blocked.default_code  # nobody could be asked
    for nobody in (f"{VIP} dev eth0 FAILED", f"{VIP} dev eth0 INCOMPLETE"):
        assert await code_of(host(facts={neighbour(VIP): said(nobody)})) == ""
    assert await code_of(host(facts=asked)) == "SHW-840"
    assert await code_of(host(more=HELD)) == "SHW-840"  # on the host itself, and not by us
    assert await code_of(host(facts=asked), host(2), host(3)) == "SHW-840"


async def test_one_that_a_control_plane_of_ours_holds_is_its_own() -> None:
    asked = {neighbour(VIP): said(ANSWERS)}
    ours = host(2, HELD, facts={OURS: TOLD})
    assert await code_of(host(facts=asked), ours, host(3)) == ""
    assert await code_of(host(facts=asked), ours, Away({})) == ""
    assert await code_of(host(facts=asked), host(2, HELD), host(3)) == "SHW-840"  # held there, and not by us
    assert await code_of(host(facts=asked), host(2), Away({})) == Unreachable.default_code  # it may be that one's
    assert await code_of(host(facts={**asked, OURS: TOLD})) == ""  # told of it already
    runs = {UnitState(OWN.unit): unit()}
    assert await code_of(host(more=HELD, facts=runs)) == ""  # somebody took its file away
    assert await code_of(host(facts=asked), host(2, HELD, facts=runs)) == ""
    other = TOLD.replace(VIP, "10.9.0.20")
    assert await code_of(host(more=HELD, facts={**runs, OURS: other})) == "SHW-840"
    assert await code_of(host(facts={**asked, OURS: other})) == "SHW-840"  # another address stood in the file


async def test_held_by_none_or_by_two_is_drift_and_one_that_moves_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_module, "PAUSE", 0.0)

    async def have(*planes: KnownFacts) -> str:
        seen = await VipHeld(with_vip(), planes).check(None)  # type: ignore[arg-type]
        return seen.have if seen else ""

    none, held, two, away = (quiet(one) for one in (host(1), host(2, HELD), host(3, HELD), Away({})))
    assert await have(none, held) == ""
    assert await have(none, held, away) == ""
    assert await have(none) == f"{VIP} is held by none"
    assert await have(held, two) == f"{VIP} is held by cp2 and cp3"
    turns = iter([SHOWN, SHOWN, HELD])

    class Late(KnownFacts):
        async def read(self, *_: Fact[Any]) -> Any:
            return Output(0, next(turns).format(n=4), "")

        def forget(self) -> None:
            """Know nothing."""

    assert await have(Late({})) == ""


async def test_one_that_the_file_does_not_name_any_more_may_hold_it_until_it_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_module, "PAUSE", 0.0)
    fewer = without(with_vip(), "cp3")
    before, after = (config_of(one, with_vip().hosts[0], ETH0) for one in (with_vip(), fewer))
    for told, heard, holds_it in (
        (before, ANSWERS, True),
        (before, f"{VIP} dev eth0 FAILED", False),
        (after, ANSWERS, False),  # whoever answers is none of ours
    ):
        plane = quiet(host(facts={OURS: told, neighbour(VIP): said(heard)}))
        drift = await VipHeld(fewer, (plane, quiet(Away({})))).check(None)  # type: ignore[arg-type]
        assert (drift is None) is holds_it


# --- where it is looked at


def test_a_cluster_without_it_keeps_nothing_of_it_and_one_with_it_is_certified_for_it() -> None:
    plain, made = cluster(), with_vip()
    assert [type(step) for step in listed.steps(plain, plain.hosts[0], DEBIAN, ())][:1] == [OwnGone]
    assert (may_hold(plain, plain.hosts[0], ()), certified(plain)) == ([], [])
    steps = listed.steps(made, made.hosts[0], DEBIAN, ())
    assert [step.own for step in steps if isinstance(step, OwnUnitRead)] == [OWN]
    assert VIP in init_documents(made, made.hosts[0])[1]["apiServer"]["certSANs"]
    assert VIP in names_of(made)
    assert names_of(plain) == [NAME, "127.0.0.1", "localhost"]
    external = made.model_copy(
        update={"kubernetes": made.kubernetes.model_copy(update={"api_endpoint": "lb.example:443"})}
    )
    assert init_documents(external, external.hosts[0])[1]["apiServer"]["certSANs"] == [VIP]
    parts = [step for part in cluster_parts(Run(made, "drift")) for step in part.steps]
    (held,) = (step for step in parts if isinstance(step, VipHeld))
    assert len(held.planes) == 3
    assert not [step for part in cluster_parts(Run(plain, "drift")) for step in part.steps if isinstance(step, VipHeld)]


async def test_a_running_api_server_whose_certificate_lacks_it_is_told_with_the_verb_that_mends_it() -> None:
    lacks, good = (said(f"DNS:cp1, IP Address:{address}\n") for address in ("10.9.0.1", VIP))
    assert await CertificateGood(VIP).check(KnownFacts({NAMES: good})) is None  # type: ignore[arg-type]
    with pytest.raises(Permanent, match="not good for") as raised:
        await CertificateGood(VIP).check(KnownFacts({NAMES: lacks}))  # type: ignore[arg-type]
    assert (raised.value.code, "shipway move-endpoint FILE" in raised.value.fix) == ("SHW-842", True)
    with pytest.raises(Blocked):
        await CertificateGood(VIP).check(KnownFacts({NAMES: said("", 1)}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.1", "is the address of a"),
        ("10.244.3.1", "lies in the pod network"),
        ("10.96.0.5", "lies in the service network"),
        ("127.0.0.1", "cannot be an address"),
        ("224.0.0.18", "cannot be an address"),
        ("255.255.255.255", "cannot be an address"),
        ("0.0.0.0", "cannot be an address"),  # noqa: S104 - a fault
        ("169.254.0.9", "cannot be an address"),
        ("10.0.0.9", ""),
    ],
)
def test_an_address_that_cannot_be_held_is_refused_in_the_file(address: str, why: str) -> None:
    kubernetes = f"{{api_vip: {{address: {address}}}, pod_network: 10.244.0.0/16}}"
    text = f"name: te\nhosts:\n- {{name: a, address: 10.0.0.1}}\nkubernetes: {kubernetes}\n"
    if not why:
        assert parse_cluster(text).api_vip == address
        return
    with pytest.raises(Refused, match=why):
        parse_cluster(text)


def test_an_address_that_nodes_need_is_refused_for_it_is_held_once_the_api_serves() -> None:
    kubernetes = "{api_endpoint: '10.0.0.9:6443', api_vip: {address: 10.0.0.9}}"
    with pytest.raises(Refused, match="is the endpoint: no node may need it"):
        parse_cluster(f"name: te\nhosts: [10.0.0.1]\nkubernetes: {kubernetes}\n")


def test_this_machines_kubeconfig_leads_to_it_and_one_that_does_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(with_vip(), "bootstrap")
    saved: list[str] = []
    monkeypatch.setattr(type(run), "folder", tmp_path)
    monkeypatch.setattr("tasks.kubeconfig.save_kubeconfig", lambda _, text: saved.append(text))
    text = f"clusters:\n- cluster:\n    server: https://{NAME}:6443\n  name: te\n"
    assert keep_kubeconfig(run, text, "kept").outcome == "changed"
    assert f"server: https://{VIP}:6443\n    tls-server-name: {NAME}\n" in saved[0]
    (tmp_path / "kubeconfig").write_text(saved[0])
    (tmp_path / "kubeconfig").chmod(0o600)
    assert keep_kubeconfig(run, text, "kept").outcome == "ok"


def test_what_lets_systemd_read_its_units_is_withheld_beside_gpu_pods() -> None:
    assert OwnUnitRead.impact is Impact.SERVICE


def test_to_ask_for_an_address_a_packet_is_sent(tmp_path: Path) -> None:
    """A socket that is only opened asks nobody: it is the packet that makes the kernel ask by ARP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(10)
        ip = tmp_path / "ip"
        ip.write_text('#!/bin/sh\necho "$5 dev lo lladdr 02:00:00:00:00:01 REACHABLE"\n')
        ip.chmod(0o755)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        script = held_module._ASK.replace("/9)", f"/{heard.getsockname()[1]})")
        words = ("bash", "-c", script, "bash", "127.0.0.1")
        ran = subprocess.run(words, env=env, check=True, capture_output=True, text=True)
        assert heard.recv(100) == b"\n"
    assert ran.stdout == "127.0.0.1 dev lo lladdr 02:00:00:00:00:01 REACHABLE\n"


@pytest.mark.parametrize(
    ("allow", "before", "holders", "outcomes"),
    [
        (Impact.SERVICE, "ok", 1, ["ok"]),
        (Impact.SERVICE, "changed", 0, ["drifted"]),  # told of, and the stages behind it go on
        (Impact.SERVICE, "drifted", 0, []),  # keepalived was withheld beside pods
        (Impact.NOTHING, "ok", 0, []),
    ],
)
async def test_an_address_that_none_holds_is_told_of_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, allow: Impact, before: Outcome, holders: int, outcomes: list[str]
) -> None:
    async def check(*_: object) -> Drift | None:
        return None if holders else Drift("held by none", "held")

    monkeypatch.setattr(VipHeld, "check", check)
    monkeypatch.setattr(table, "VIP_SECONDS", 0.0)
    monkeypatch.setattr(table, "planes_of", lambda _: ())
    run = Run(with_vip(), "bootstrap")
    run.allow = allow
    told = await table._vip_held(run, "control_plane", host(), [StepResult("before", before)])  # type: ignore[arg-type]
    assert [one.outcome for one in told] == outcomes
    assert errors_of("cp1", told, allow) == ()
    assert bool(run.warned) is ("drifted" in outcomes)


class Holding:
    """A stage of a control plane behind which the address is looked for; the last of the answers stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Drift | None, made: Cluster | None = None) -> None:
        self.answers, self.looks, self.heard = list(answers), 0, list[Any]()
        self.run = Run(made or with_vip(), "bootstrap")

        async def check(*_: object) -> Drift | None:
            self.looks += 1
            assert self.looks < 9, "its time was over"
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

        monkeypatch.setattr(VipHeld, "check", check)
        monkeypatch.setattr(table, "planes_of", lambda _: ())
        for name in ("hear_waits", "hear_results"):
            monkeypatch.setattr(table, name, lambda *_: self.heard.append)

    async def wait(self) -> list[StepResult]:
        """Wait for it, behind steps that came out well."""
        return await table._vip_held(self.run, "control_plane", host(), [StepResult("before", "ok")])  # type: ignore[arg-type]


NOBODY = Drift("held by none", "held")


async def test_an_address_that_is_on_its_way_is_waited_for_and_what_is_waited_for_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Holding(monkeypatch, NOBODY, None)
    (held,) = await scene.wait()
    assert (held.outcome, scene.run.warned) == ("ok", [])
    assert scene.heard == [f"waiting until {held.step}: held by none", held]


async def test_that_none_holds_it_is_told_once_however_many_control_planes_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "VIP_SECONDS", 0.0)
    scene = Holding(monkeypatch, NOBODY)
    for _ in range(2):
        await scene.wait()
    assert (scene.looks, len(scene.run.warned)) == (2, 1)


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_nobody_waits_for_an_address_that_there_is_not_or_that_others_are_not_told_of_yet(
    monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool
) -> None:
    async def told(*_: object) -> bool:
        return elsewhere

    monkeypatch.setattr(table, "told_otherwise", told)
    scene = Holding(monkeypatch, None, made=with_vip() if elsewhere else cluster())
    assert (await scene.wait(), scene.looks) == ([], 0)
