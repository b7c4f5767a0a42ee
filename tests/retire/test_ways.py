"""A control plane does not leave while another host's kubelet asks the API by it alone, in whatever way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.edits.lines import hosts_file
from shipway.errors import Refused, ShipwayError, Unreachable
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.facts.services import UnitInfo, UnitState
from shipway.ownership.evidence import KUBECONFIGS, KUBELET_CONF
from shipway.steps.endpoint.keeps_way import Ways, connections, find_lost, resolved
from shipway.steps.endpoint.kubeconfigs import MARK
from shipway.steps.system import api_proxy
from shipway.steps.system.api_proxy import proxy_config
from shipway.steps.system.names import HOSTS
from shipway.survey.first_look import CLOCK
from tasks.context import Run
from tasks.retire.ways import OthersKeepWay
from tests.ownership.test_leading import NAME, cluster
from tests.places.facts import KnownFacts, said
from tests.retire.objects import Objects, node

LB = "lb.example"
EXTERNAL = f"kubernetes: {{api_endpoint: {{kind: external, name: {LB}, port: 7443}}}}\n"
PORTS = (6443, 7443)
PLANES = {f"cp{number}": f"10.9.0.{number}" for number in (1, 2, 3)}
# cp1 leaves. Behind a load balancer; with a name of ours; with that, and one control plane left.
BEHIND = Ways(frozenset({"10.9.0.1"}), frozenset({"10.9.0.2", "10.9.0.3"}), LB, PORTS, hosts=frozenset({*PLANES, "w1"}))
OURS = Ways(frozenset({"10.9.0.1"}), BEHIND.stay, NAME, PORTS, follows=True, proxied=True, hosts=BEHIND.hosts)
LAST = Ways(frozenset({"10.9.0.1"}), frozenset({"10.9.0.2"}), NAME, PORTS, follows=True, hosts=BEHIND.hosts)


def host(server: str, peers: tuple[str, ...] | None = None, **more: Any) -> KnownFacts:
    """Return a host whose kubelet.conf has a server; with `peers` its kubelet was not started since that was so."""
    changed = 2000 if peers is not None else 500
    lines = [f'0 0 10.9.0.9:4{at} {peer} users:(("kubelet",pid=7,fd=3))' for at, peer in enumerate(peers or ())]
    lines.append('0 0 10.9.0.9:49 10.9.0.1:6443 users:(("agent",pid=8,fd=3))')
    facts: dict[Fact[Any], Any] = {
        KUBECONFIGS: said(f"{KUBELET_CONF}:    server: {server}\n"),
        CLOCK: said("5000"),
        UnitState("kubelet.service"): UnitInfo("loaded", "active", "running", "enabled", 1000, needs_reload=False),
        FileState(MARK): FileInfo("d" * 64, "600", "root:root", changed),
        FileText(HOSTS): hosts_file("", {**PLANES, **more.pop("names", {})}),
        connections(*PORTS): said("\n".join(lines)),
        **more.pop("facts", {}),
    }
    return KnownFacts(facts)


ALL, ONE = "10.9.0.1 10.9.0.2 10.9.0.3", "10.9.0.1"
PROXY = {"facts": {FileText(api_proxy.CONFIG): proxy_config(cluster(3))}}
STALE_PROXY = {"facts": {FileText(api_proxy.CONFIG): proxy_config(cluster(1))}}


@pytest.mark.parametrize(
    ("ways", "on", "lost"),
    [
        # by what its kubelet.conf names
        (BEHIND, host(f"https://{LB}:7443"), ""),
        (BEHIND, host("https://10.9.0.1:6443"), "kubelet.conf leads to 10.9.0.1"),
        (BEHIND, host("https://10.9.0.2:6443"), ""),
        (BEHIND, host("https://cp1:6443"), "kubelet.conf leads to cp1, which is 10.9.0.1 there"),
        (OURS, host("https://cp1:6443"), "kubelet.conf leads to cp1, which is 10.9.0.1 there"),
        (BEHIND, host(f"https://{NAME}:6443", names={NAME: ONE}), f"leads to {NAME}, which is 10.9.0.1 there"),
        (BEHIND, host(f"https://{NAME}:6443", names={NAME: ALL}), ""),
        (OURS, host(f"https://{NAME}:6443", names={NAME: ONE}), ""),
        (OURS, host("https://old.internal:6443", names={"old.internal": ONE}), ""),
        (BEHIND, host("https://old.example:6443"), "where that leads could not be told"),
        (BEHIND, host("https://old.example:6443", facts={resolved("old.example"): said("10.9.0.1 STREAM x\n")}), "old"),
        (BEHIND, host("https://old.example:6443", facts={resolved("old.example"): said("10.8.0.1 STREAM x\n")}), ""),
        (BEHIND, host("https://127.0.0.1:6443"), "leads to 127.0.0.1"),
        (BEHIND, host("https://127.0.0.1:6443", **PROXY), ""),
        (BEHIND, host("https://localhost:6443", **STALE_PROXY), "leads to localhost"),
        (BEHIND, host(f"https://{NAME}:6443", names={NAME: "127.0.0.1"}, **STALE_PROXY), "127.0.0.1 there"),
        (BEHIND, host(f"https://{NAME}:6443", names={NAME: "127.0.0.1"}, **PROXY), ""),
        (OURS, host("https://127.0.0.1:6443", **PROXY), ""),
        (LAST, host("https://127.0.0.1:6443", **PROXY), "leads to 127.0.0.1"),
        (BEHIND, host("x", facts={KUBECONFIGS: said("", 124)}), "could not be read"),
        (BEHIND, host("x", facts={KUBECONFIGS: said("", 1)}), ""),
        # by where it is connected to, as its file is newer than its start
        (BEHIND, host(f"https://{LB}:7443", ("10.9.0.1:6443",)), "and is connected to 10.9.0.1"),
        (BEHIND, host(f"https://{LB}:7443", ("[::ffff:10.9.0.1]:6443",)), "and is connected to 10.9.0.1"),
        (OURS, host(f"https://{NAME}:6443", ("10.9.0.1:6443",)), "and is connected to 10.9.0.1"),
        (BEHIND, host(f"https://{LB}:7443", ("10.9.0.2:6443",)), ""),
        (BEHIND, host(f"https://{LB}:7443", ("127.0.0.1:6443",), **PROXY), ""),
        (BEHIND, host(f"https://{LB}:7443", ("127.0.0.1:6443",), **STALE_PROXY), "and is connected to 127.0.0.1"),
        (LAST, host(f"https://{NAME}:6443", ("127.0.0.1:6443",)), ""),
        (BEHIND, host(f"https://{LB}:7443", ()), "what it asks could not be told"),
        (BEHIND, host(f"https://{LB}:7443", (), facts={connections(*PORTS): said("", 127)}), "could not be told"),
    ],
)
async def test_a_kubelet_keeps_its_way_or_it_is_said_which_it_would_lose(ways: Ways, on: Any, lost: str) -> None:
    found = await find_lost(on, ways)
    assert bool(found) is bool(lost), found
    assert lost in found


def test_each_port_is_asked_for_once() -> None:
    assert connections(6443, 6443).command[-5:] == ("(", "dport", "=", ":6443", ")")
    assert connections(6443, 443).command[-9:-4] == ("(", "dport", "=", ":6443", "or")


def removing(hosts: dict[str, Any], more: str = EXTERNAL) -> Run:
    """Return a run that removes cp1, with what is known of the others, or why they do not answer."""
    run = Run(cluster(3, more), "remove")

    def session(name: str) -> Any:
        found = hosts.get(name, Unreachable("no SSH connection within 20 s"))
        if not isinstance(found, ShipwayError):
            return found

        async def fails(*_: Any) -> Any:
            raise found

        return SimpleNamespace(read=fails, read_all=fails, forget=lambda: None)

    run.session = session  # type: ignore[method-assign]
    return run


def nodes(*, worker: bool = True) -> list[Any]:
    return [*(node(name, role="control-plane") for name in PLANES), node("w1", ready=worker)]


async def test_a_control_plane_stays_while_a_worker_asks_by_it_and_the_next_step_is_named() -> None:
    by_balancer = host(f"https://{LB}:7443")
    run = removing({"cp2": by_balancer, "cp3": by_balancer, "w1": host(f"https://{LB}:7443", ("10.9.0.1:6443",))})
    with pytest.raises(Refused) as refused:
        await OthersKeepWay(run, "cp1").check(cast("Any", Objects(*nodes())))
    assert (refused.value.code, refused.value.host) == ("SHW-717", "cp1")
    said = "w1: its kubelet was not started since the endpoint was moved, and is connected to 10.9.0.1"
    assert refused.value.message == f"kubelets would lose their way to the API with it: {said}"
    assert "shipway move-endpoint" in refused.value.fix
    run.session("w1").facts = by_balancer.facts
    assert await OthersKeepWay(run, "cp1").check(cast("Any", Objects(*nodes()))) is None


async def test_a_host_that_does_not_answer_is_left_out_where_its_node_has_no_way_now() -> None:
    by_balancer = host(f"https://{LB}:7443")
    run = removing({"cp2": by_balancer, "cp3": by_balancer})
    with pytest.raises(Refused, match="w1: it could not be asked: no SSH connection"):
        await OthersKeepWay(run, "cp1").check(cast("Any", Objects(*nodes())))
    assert await OthersKeepWay(run, "cp1").check(cast("Any", Objects(*nodes(worker=False)))) is None
    assert await OthersKeepWay(run, "cp1").check(cast("Any", Objects(*nodes()[:3]))) is None, "it is no node"


async def test_a_control_plane_that_has_not_joined_is_no_way() -> None:
    by_both = host(f"https://{NAME}:6443", names={NAME: "10.9.0.1 10.9.0.2"})
    run = removing({"w1": by_both})
    with pytest.raises(Refused, match=r"which is 10\.9\.0\.1, 10\.9\.0\.2 there"):
        await OthersKeepWay(run, "cp1").check(cast("Any", Objects(nodes()[0], node("w1"))))
