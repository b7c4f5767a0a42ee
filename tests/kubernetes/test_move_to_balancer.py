"""An endpoint is moved to a site's load balancer: what is seen of it before; what goes afterwards, and what stays."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shipway.cluster.model import Cluster
from shipway.converge import converge, look_at_all
from shipway.edits.lines import hosts_file, read_block
from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.facts.services import UnitInfo, UnitState
from shipway.kubeadm.writes import PKI
from shipway.ownership.evidence import ADMIN, KUBECONFIGS, KUBELET_CONF
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.endpoint import balancer
from shipway.steps.endpoint.balancer import BalancerAnswers, EveryPlaneBehind, Shown, read_shown, shown, unseen
from shipway.steps.endpoint.certificate import CONFIG, NAMES, CertificateNames, names_of
from shipway.steps.endpoint.kubeconfigs import MARK, leads_to
from shipway.steps.endpoint.old_way import SERVERS, STILL, OldNamesGone, ProxyGone, connected, find_asking
from shipway.steps.kubernetes.endpoint import BalancerReached
from shipway.steps.system import api_proxy
from shipway.steps.system.names import HOSTS, HostsNamed
from shipway.survey.first_look import CLOCK
from tasks.context import Run
from tasks.drift.parts import host_parts
from tasks.endpoint.here import meet_here
from tasks.stages import join_worker
from tests.ownership.test_leading import NAME, THERE, cluster
from tests.places.facts import DEBIAN, KnownFacts, said

LB = "lb.example"
EXTERNAL = f"kubernetes: {{api_endpoint: {{kind: external, name: {LB}, port: 7443}}}}\n"
PLANES = {"aa": "cp1", "bb": "cp2", "cc": "cp3"}
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")


def to_balancer(planes: int = 3) -> Cluster:
    return cluster(planes, EXTERNAL)


# --- what is seen through it


def context(folder: Path, name: str) -> ssl.SSLContext:
    """Return a server's context with a key and a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    title = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(title).issuer_name(title).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    signed = made.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / f"{name}.pem").write_bytes(pem + signed.public_bytes(serialization.Encoding.PEM))
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(folder / f"{name}.pem")
    return own


@asynccontextmanager
async def listening(handle: Any, own: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yield the port of a server on the loopback."""
    under_way: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way.add(asyncio.current_task())  # type: ignore[arg-type]
        await handle(reader, writer)

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=own)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.wait_for(asyncio.gather(*under_way), 10)


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await reader.read()
    writer.transport.abort()


@asynccontextmanager
async def balanced(ports: Sequence[int]) -> AsyncIterator[int]:
    """Yield the port of a balancer that passes TCP on to these in turn; 0 stands for a server that is lost."""
    turns: Iterator[int] = itertools.cycle(ports)

    async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                to.write(data)
                await to.drain()
        to.close()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = next(turns)
        if not port:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with listening(passed) as port:
        yield port


async def asked(fact: Says) -> Shown:
    """Run a fact's command here, as a host does."""
    process = await asyncio.create_subprocess_exec(*fact.words(), stdout=-1, stderr=-1)
    out, err = await process.communicate()
    return read_shown(Output(process.returncode or 0, out.decode(), err.decode()))


@needs_openssl
async def test_each_connection_tells_which_server_answered_by_a_real_openssl_and_by_this_machine(
    tmp_path: Path,
) -> None:
    one, two = context(tmp_path, "one"), context(tmp_path, "two")
    async with listening(serve, one) as first, listening(serve, two) as second, balanced([first, second]) as port:
        (own,) = (await asked(shown("127.0.0.1", first, 1, "localhost"))).prints
        for seen in (await asked(shown("localhost", port, 4, "localhost")), await meet_here("localhost", port, 4)):
            assert (seen.status, len(seen.prints), len(set(seen.prints))) == (0, 4, 2)
            assert own in seen.prints
            assert len(own) == 64


@needs_openssl
async def test_what_does_not_answer_each_time_is_told_from_a_name_that_is_not_known(tmp_path: Path) -> None:
    own = context(tmp_path, "one")
    async with listening(serve, own) as good, balanced([good, good, 0]) as port, listening(hang_up) as dumb:
        for seen in (await asked(shown("localhost", port, 6, "localhost")), await meet_here("localhost", port, 6)):
            assert (seen.status, len(seen.prints)) == (balancer.SILENT, 2)  # one of its servers is lost
            assert seen.said.startswith("connection 3 of 6")
        for seen in (await asked(shown("localhost", dumb, 1, "localhost")), await meet_here("localhost", dumb, 1)):
            assert (seen.status, seen.prints) == (balancer.SILENT, ())
    none = f"{'a' * 64}.invalid"  # too long to be asked for, so that no name server is waited for
    for seen in (await asked(shown(none, 1, 1, none)), await meet_here(none, 1, 1)):
        assert (seen.status, seen.prints) == (balancer.UNKNOWN, ())


def test_older_openssl_writes_the_word_in_capitals_and_rubbish_is_nothing() -> None:
    text = "SHA256 Fingerprint=AA:0B\nsha256 Fingerprint=CC:DD\nrubbish\n"
    assert read_shown(Output(0, text, "")).prints == ("aa0b", "ccdd")
    assert read_shown(Output(124, "", "")).status == 124


@pytest.mark.parametrize(
    ("seen", "code", "word"),
    [
        (Shown(("aa", "bb")), "", ""),
        (Shown(status=3), "SHW-844", "does not know the name lb.example"),
        (Shown(("aa",), 4, "connection 2 of 12"), "SHW-845", "connection 2 of 12"),
        (Shown((), 124), "SHW-845", "no answer in time"),
        (Shown((), 127), "SHW-845", "no openssl on w1"),
        (Shown(("aa", "ff")), "SHW-846", "of none of them"),
    ],
)
async def test_a_balancer_that_is_not_known_not_there_or_not_this_clusters_is_refused(
    seen: Shown, code: str, word: str
) -> None:
    (result,) = await look_at_all([BalancerAnswers("w1", f"{LB}:7443", seen, PLANES)], KnownFacts({}))  # type: ignore[list-item]
    assert (result.error.code if result.error else "", result.error.host if result.error else "") == (
        code,
        "w1" if code else "",
    )
    assert word in (result.error.message if result.error else "")


@pytest.mark.parametrize(
    ("seen", "missing", "refused"),
    [
        ((("aa", "bb", "cc"), ("aa", "aa", "aa")), [], False),
        ((("aa", "bb", "aa"), ("aa", "bb", "bb")), ["cp3"], True),
        ((("aa", "aa", "aa"), ("bb", "bb", "bb")), ["cp3"], False),  # each client is kept at one: nobody can tell
        ((("aa",), ("bb",), ("cc",)), [], False),
        ((("aa", "ff"), ("bb", "bb")), ["cp3"], False),  # what is no control plane of ours is none of several
    ],
)
async def test_a_control_plane_that_is_not_behind_it_is_named_where_that_can_be_told(
    seen: tuple[tuple[str, ...], ...],
    missing: list[str],
    refused: bool,  # noqa: FBT001
) -> None:
    met = [Shown(prints) for prints in seen]
    assert unseen(met, PLANES)[0] == missing
    (result,) = await look_at_all([EveryPlaneBehind(f"{LB}:7443", met, PLANES)], KnownFacts({}))  # type: ignore[list-item]
    assert (result.error.code if result.error else "") == ("SHW-847" if refused else "")
    assert result.error is None or missing[0] in result.error.message


# --- the names of its endpoint


def test_a_load_balancers_name_is_told_from_ours_and_from_an_address() -> None:
    made = to_balancer()
    assert (made.balancer, made.api_name, made.endpoint) == (LB, "", f"{LB}:7443")
    assert cluster(1, "kubernetes: {api_endpoint: lb.example}\n").balancer == LB
    assert cluster(1, "kubernetes: {api_endpoint: 10.9.0.7}\n").balancer == ""
    assert cluster(1).balancer == ""
    assert names_of(made) == [LB, "127.0.0.1", "localhost"]
    assert leads_to(made, made.host("w1")) == {KUBELET_CONF: (f"{LB}:7443",)}


async def test_kubeadm_is_given_the_balancers_name_and_all_that_the_certificate_was_good_for() -> None:
    made = to_balancer(1)
    shows = f"    DNS:{NAME}, DNS:site.example, IP Address:127.0.0.1, DNS:localhost, IP Address:10.9.0.1\n"
    host = KnownFacts({NAMES: said(shows), Listing(PKI): ("ca.crt", "ca.key")})
    step = CertificateNames(made, made.hosts[0])
    found = await step.check(host)  # type: ignore[arg-type]
    assert found is not None
    assert found.have == f"not for {LB}"
    await step.apply(host)  # type: ignore[arg-type]
    declared = list(yaml.safe_load_all(host.written[CONFIG]))[1]
    assert declared["controlPlaneEndpoint"] == f"{LB}:7443"
    names = declared["apiServer"]["certSANs"]
    assert set(names) >= {LB, NAME, "site.example", "127.0.0.1", "localhost", "10.9.0.1"}
    assert len(names) == len(set(names))


# --- what an endpoint before leaves on a host

BLOCK = {"cp1": "10.9.0.1", "cp2": "10.9.0.2", "cp3": "10.9.0.3", "w1": "10.9.0.9"}
OWN_PLANES = ("10.9.0.1", "10.9.0.2", "10.9.0.3")
SITES = f"127.0.0.1 localhost\n10.9.0.50 {LB} # the site's\n"
JOINED = said(f"{KUBELET_CONF}:    server: https://{LB}:7443\n")


def with_names(**names: str) -> str:
    """Return /etc/hosts with a site's line, and our block with these names (underscores stand for dots)."""
    return hosts_file(SITES, {**BLOCK, **{name.replace("_", "."): leads for name, leads in names.items()}})


class Machine(KnownFacts):
    """A host whose /etc/hosts is what was written last."""

    def __init__(self, text: str, facts: dict[Fact[Any], Any] | None = None) -> None:
        super().__init__({FileText(HOSTS): text, FileState(HOSTS): THERE, KUBECONFIGS: JOINED, **(facts or {})})

    async def write(self, path: str, content: bytes, **more: str) -> None:
        """Keep it."""
        await super().write(path, content, **more)
        self.facts[FileText(path)] = content.decode()

    @property
    def text(self) -> str:
        """What its /etc/hosts says."""
        return str(self.facts[FileText(HOSTS)])


def named(made: Cluster) -> HostsNamed:
    return HostsNamed(BLOCK, made.api_name, "127.0.0.1", OWN_PLANES, balancer=made.balancer)


@pytest.mark.parametrize("leads", ["127.0.0.1", "10.9.0.1", "10.9.0.1 10.9.0.2 10.9.0.3"])
async def test_no_other_run_takes_a_name_of_an_endpoint_before_from_a_host_that_has_joined(leads: str) -> None:
    text = with_names(api_te_internal=leads)
    assert await named(to_balancer()).check(Machine(text)) is None  # type: ignore[arg-type]
    bare = Machine(text, {KUBECONFIGS: said("")})
    step = named(to_balancer())
    assert await step.check(bare) is not None  # type: ignore[arg-type]
    await step.apply(bare)  # type: ignore[arg-type]
    assert read_block(bare.text) == BLOCK
    gone = Machine(with_names(w9="10.9.0.77"))  # a host that the file does not name any more
    await step.apply(gone)  # type: ignore[arg-type]
    assert read_block(gone.text) == BLOCK


async def test_a_file_whose_balancer_has_the_name_that_our_lines_lead_by_is_refused_on_each_host() -> None:
    with pytest.raises(Refused) as raised:
        await named(to_balancer()).check(Machine(with_names(lb_example="127.0.0.1")))  # type: ignore[arg-type]
    assert raised.value.code == "SHW-775"
    assert await named(to_balancer()).check(Machine(with_names())) is None  # type: ignore[arg-type]


def names_gone(**used: str) -> OldNamesGone:
    used = {name.replace("_", "."): by for name, by in used.items()}
    return OldNamesGone(tuple(BLOCK), OWN_PLANES, "", used)


def started(at: int) -> dict[Fact[Any], Any]:
    """Return the facts of a kubelet that started then, where its server was changed at 2000."""
    unit = UnitInfo("loaded", "active", "running", "enabled", at, needs_reload=False, invocation="one")
    mark = FileInfo("d" * 64, "600", "root:root", 2000)
    return {CLOCK: said("5000"), UnitState("kubelet.service"): unit, FileState(MARK): mark}


async def test_a_name_that_nobody_asks_by_goes_and_every_other_line_stays() -> None:
    host = Machine(with_names(api_te_internal="127.0.0.1"), started(2001))
    (result,) = await converge([names_gone()], host, Impact.SERVICE)  # type: ignore[list-item]
    assert result.outcome == "changed"
    assert host.text == hosts_file(SITES, BLOCK)
    host.written.clear()
    (result,) = await converge([names_gone()], host, Impact.SERVICE)  # type: ignore[list-item]
    assert (result.outcome, host.written) == ("ok", {})


async def test_a_plan_takes_no_name_away_and_where_there_is_none_nothing_keeps_it() -> None:
    host = Machine(with_names(api_te_internal="127.0.0.1"), started(2001))
    (result,) = await converge([names_gone()], host, Impact.NOTHING)  # type: ignore[list-item]
    assert (result.outcome, host.written) == ("drifted", {})
    assert await names_gone().hold(Machine(with_names(), started(1999))) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "used", "word"),
    [
        ({SERVERS: said(f"{ADMIN}:    server: https://{NAME}:6443\n")}, {}, f"{ADMIN} asks by it"),
        ({SERVERS: said(f"/home/a/.kube/config:    server: https://{NAME}\n")}, {}, "/home/a/.kube/config asks by it"),
        (started(1999), {}, STILL),
        ({}, {"api_te_internal": "site/agent"}, "site/agent name it"),
    ],
)
async def test_a_name_that_somebody_asks_by_stays_and_who_that_is_is_told(
    facts: dict[Fact[Any], Any], used: dict[str, str], word: str
) -> None:
    host = Machine(with_names(api_te_internal="10.9.0.1"), facts)
    (result,) = await converge([names_gone(**used)], host, Impact.SERVICE)  # type: ignore[list-item]
    assert (result.outcome, host.written) == ("drifted", {})
    assert result.drift is not None
    assert result.drift.have == f"{NAME}: {word}"


async def test_the_endpoints_own_name_is_none_of_those_before() -> None:
    step = replace(names_gone(), api_name=NAME)
    host = Machine(with_names(api_te_internal="127.0.0.1", api_old="127.0.0.1"), started(2001))
    await converge([step], host, Impact.SERVICE)  # type: ignore[list-item]
    assert read_block(host.text) == {**BLOCK, NAME: "127.0.0.1"}


def test_kubeconfigs_are_told_by_the_hosts_of_their_servers() -> None:
    lines = (
        f"/a:    server: https://{NAME}:6443",
        f'/b:  - server: "https://{NAME}"',
        f"/c:    server: https://x.{NAME}:6443",
        "/d:    server: https://127.0.0.1:6443",
        "/e:    server: https://127.0.0.1:7443",
        "/f:    server: http://[:",
        "/g:",
    )
    text = "\n".join(lines)
    assert find_asking(text, [NAME]) == ["/a", "/b"]
    assert find_asking(text, ["127.0.0.1"], 6443) == ["/d"]


PROXY = {FileState(api_proxy.OWN.path): THERE}
KUBELET = 'ESTAB 0 0 127.0.0.1:5 127.0.0.1:6443 users:(("agent",pid=7,fd=3))\n'


@pytest.mark.parametrize(
    ("text", "facts", "word"),
    [
        (with_names(), {}, ""),
        (with_names(api_te_internal="127.0.0.1"), {}, f"{NAME} leads to it"),
        (with_names(), {SERVERS: said(f"{KUBELET_CONF}:    server: https://localhost:6443\n")}, "asks by it"),
        (with_names(), {connected(6443): said(KUBELET)}, "agent is connected"),
        (with_names(), started(1999), STILL),
    ],
)
async def test_a_proxy_goes_once_nobody_asks_by_it(text: str, facts: dict[Fact[Any], Any], word: str) -> None:
    host = Machine(text, {**PROXY, **facts})
    seen = await ProxyGone().check(host)  # type: ignore[arg-type]
    assert seen is not None
    assert word in seen.have
    assert bool(await ProxyGone().hold(host)) is bool(word)  # type: ignore[arg-type]
    await converge([ProxyGone()], host, Impact.SERVICE)  # type: ignore[list-item]
    assert any("systemctl stop" in line for line in host.done) is not bool(word)
    host.facts.pop(FileState(api_proxy.OWN.path))
    assert await ProxyGone().check(host) is None  # type: ignore[arg-type]


async def test_beside_gpu_pods_a_proxy_stays() -> None:
    host = Machine(with_names(), PROXY)
    (result,) = await converge([ProxyGone()], host, Impact.START)  # type: ignore[list-item]
    assert (result.outcome, host.done) == ("drifted", [])


async def test_a_drift_pass_asks_each_host_whether_the_balancer_leads_to_its_cluster() -> None:
    step = BalancerReached(f"{LB}:7443")
    host = KnownFacts({})
    assert await step.check(host) is not None  # type: ignore[arg-type]
    (fact,) = host.asked
    assert fact.words()[-1] == f"https://{LB}:7443/livez"
    assert await step.check(KnownFacts({fact: said("")})) is None  # type: ignore[arg-type]
    foreign = await step.check(KnownFacts({fact: Output(60, "", "curl: (60) SSL certificate problem")}))  # type: ignore[arg-type]
    assert foreign is not None
    assert "certificate problem" in foreign.have

    def asks(made: Cluster) -> bool:
        parts = host_parts(Run(made, "drift"), made.host("w1"))
        return any(isinstance(step, BalancerReached) for part in parts for step in part.steps)

    assert (asks(to_balancer()), asks(cluster())) == (True, False)


def test_every_run_looks_for_a_proxy_that_was_left_where_the_endpoint_is_a_balancer() -> None:
    def proxies(made: Cluster) -> list[str]:
        steps = join_worker.steps(made, made.host("w1"), DEBIAN, KnownFacts({}))  # type: ignore[arg-type]
        return [type(step).__name__ for step in steps if getattr(step, "own", None) == api_proxy.OWN]

    assert (proxies(to_balancer()), proxies(cluster(1)), proxies(cluster())) == (["ProxyGone"], ["OwnGone"], [])
