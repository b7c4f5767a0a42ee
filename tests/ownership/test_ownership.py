"""Whose a host is: judged from all evidence, and nothing is reset that has run, whatever else is there or lost."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.simulated.kube.pki import Authority
from lab.simulated.options import Options
from shipway.cluster_file import parse_cluster
from shipway.errors import Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.facts.packages import PackageInfo
from shipway.host.session import Host
from shipway.kube.access import save_kubeconfig
from shipway.os.debian.dpkg import Package
from shipway.os.debian.packages import BaseUpgraded
from shipway.ownership.contradictions import contradictions
from shipway.ownership.evidence import (
    ADMIN,
    ARGUMENTS,
    AUTHORITY,
    BOOTSTRAP,
    CERTIFICATE,
    CLIENT,
    CLIENT_FOLDER,
    ETCD,
    KUBECONFIGS,
    KUBELET_CONF,
    MANIFESTS,
    PKI,
    POD_LOGS,
    PODS,
    STARTED,
    Evidence,
    address_of,
    authorities,
    evidence,
    evidence_of_files,
    node_of,
    read_servers,
)
from shipway.script import Output
from shipway.step import Drift, Impact, StepResult
from shipway.steps.kubernetes.init import ControlPlaneInitialised, Seen, decide
from shipway.steps.kubernetes.join.worker import NoBootstrapCredentials, NodeJoined
from shipway.steps.kubernetes.reset import FORBIDDEN, UNUSED
from shipway.steps.system.base import HostnameIs
from shipway.survey.first_look import Survey
from tasks.context import Run
from tasks.table import _on_host
from tests.places.facts import DEBIAN, KnownFacts
from tests.places.simulated import Place, failed, simulated_place

CLUSTER = parse_cluster(
    "name: te\nprofile: seed\nhosts:\n- {name: te1, address: 192.0.2.1}\n- {name: te2, address: 192.0.2.2}\n"
    "- {name: te3, address: 192.0.2.3}\n"
)
THERE = FileInfo("0" * 64, "600", "root:root", 1)
OURS, THEIRS, OTHERS = Authority(), Authority(), Authority()
SIGNS = (
    "kubelet_conf",
    "bootstrap",
    "certificate",
    "admin",
    "etcd",
    "static",
    "authority",
    "keys",
    "running",
    "marker",
)
Signs = tuple[str, ...]


def every_combination() -> Iterator[Signs]:
    """Return each set of signs."""
    for count in range(len(SIGNS) + 1):
        yield from itertools.combinations(SIGNS, count)


def facts_of(signs: Signs, node: str = "te2", authority: Authority = OURS) -> dict[Fact[Any], Any]:
    """Return what a host answers that shows these signs."""
    ca = authority.certificate.decode()
    files = {KUBELET_CONF: "kubelet_conf", BOOTSTRAP: "bootstrap", CLIENT: "certificate", ADMIN: "admin"}
    data = base64.b64encode(authority.certificate).decode()
    lines = [
        f"{path}:    server: https://192.0.2.1:6443\n{path}:    certificate-authority-data: {data}\n"
        for path, sign in files.items()
        if sign in signs and path != CLIENT
    ]
    names = [*(["ca.crt"] if "authority" in signs else []), *(["ca.key", "sa.key"] if "keys" in signs else [])]
    client = authority.client(f"system:node:{node}", ("system:nodes",)).certificate.decode()
    return {
        **{FileState(path): THERE for path, sign in files.items() if sign in signs and path != CLIENT},
        CLIENT_FOLDER: ("kubelet-client-current.pem", "kubelet.crt") if "certificate" in signs else ("kubelet.crt",),
        Package("kubeadm"): PackageInfo("1.20.2-00", held=True, sound=True),
        Listing(MANIFESTS): ("kube-apiserver.yaml",) if "static" in signs else (".kubelet-keep",),
        Listing(ETCD): ("wal",) if "etcd" in signs else (),
        Listing(PKI): tuple(names),
        FileText(AUTHORITY): ca if "authority" in signs else None,
        FileText(STARTED): "te\n" if "marker" in signs else None,
        KUBECONFIGS: Output(0, "".join(lines), ""),
        CERTIFICATE: Output(0, client if "certificate" in signs else "", ""),
        PODS: Output(0, "/proc/7/cmdline\n" if "running" in signs else "", ""),
    }


class Machine(KnownFacts):
    """A host that answers these facts, and keeps what was done to it; an operation answers that it failed."""

    async def operate(self, name: str, words: Sequence[str], **_: Any) -> Output:
        """Keep what was to be run; a reset goes well, everything after it is another test's."""
        self.done.append(f"{name}: {' '.join(words)}")
        return Output(0 if "reset" in name else 1, "", "")

    async def settled(self, *_: str, **__: Any) -> None:
        """Find nothing at work."""

    @property
    def resets(self) -> list[str]:
        """What was done that resets."""
        return [one for one in self.done if "kubeadm reset" in one]


def control() -> Machine:
    """Return the control plane's host."""
    return Machine({FileText(AUTHORITY): OURS.certificate.decode()})


async def test_a_join_never_resets_what_has_run_or_is_more_than_a_join_leaves() -> None:
    """Over every set of signs: a reset only where nothing but a broken join is there, and then it forbids the rest."""
    spec, reset = CLUSTER.host("te2"), 0
    for signs in every_combination():
        host, leader = Machine(facts_of(signs)), control()
        leader.facts[_node_asked()] = Output(0, "", "")
        host.facts[_reached()] = Output(0, "200", "")
        step = NodeJoined(CLUSTER, spec, DEBIAN, cast("Host", leader))
        for act in (step.check, lambda on, step=step: step.apply(on)):
            try:
                await cast("Any", act)(cast("Host", host))
            except ShipwayError:
                continue
        if host.resets:
            reset += 1
            assert not set(signs) & {"certificate", "running", "admin", "etcd", "static", "keys"}, signs
            assert all(path in host.resets[0] for path in (CLIENT, ADMIN, ETCD)), "asked again by the reset itself"
    assert reset, "a join that broke off is resumed"


def _node_asked() -> Fact[Any]:
    from shipway.facts.commands import Says  # noqa: PLC0415 - only here

    return Says(("kubectl", "--kubeconfig", ADMIN, "get", "node", "te2", "--ignore-not-found", "-o", "name"))


def _reached() -> Says:
    url = f"https://{CLUSTER.endpoint}/livez"
    return Says(("curl", "-sk", "--max-time", "8", "-o", "/dev/null", "-w", "%{http_code}", url))


async def test_an_init_never_resets_what_has_run_nor_what_no_init_of_ours_left() -> None:
    """The same over every set of signs, with and without the typed consent to lose etcd's data."""
    spec, reset = CLUSTER.host("te1"), 0
    for signs, consent in itertools.product(every_combination(), (False, True)):
        host = Machine(facts_of(signs, "te1"))
        step = ControlPlaneInitialised(CLUSTER, spec, DEBIAN, consent)
        try:
            drift = await step.check(cast("Host", host))
            if drift is not None:
                await step.apply(cast("Host", host))
        except ShipwayError:
            pass
        if host.resets:
            reset += 1
            assert not set(signs) & {"certificate", "running"}, signs
            assert consent or ("marker" in signs and "etcd" not in signs), signs
            assert CLIENT in host.resets[0]
    assert reset


@given(
    st.fixed_dictionaries(
        {
            name: st.booleans()
            for name in ("admin", "etcd_data", "manifests", "certificates", "ready", "at_work", "complete")
        }
    ),
    st.sampled_from([None, "te", "another"]),
    st.tuples(st.booleans(), st.booleans()).filter(any),
)
def test_no_combination_with_running_pods_or_a_client_certificate_is_resettable(
    seen: dict[str, bool], started_by: str | None, ran: tuple[bool, bool]
) -> None:
    state = decide(Seen(**seen, started_by=started_by, client=ran[0], running=ran[1]), "te")  # type: ignore[arg-type]
    assert state not in ("resettable", "bare")


@pytest.mark.parametrize(
    ("signs", "standing", "joined"),
    [
        ((), "nothing", False),
        (("authority",), "begun", False),
        (("marker",), "begun", False),
        (("bootstrap", "authority"), "join broke off", False),
        (("kubelet_conf", "authority"), "join broke off", False),
        (("kubelet_conf", "bootstrap", "authority"), "join broke off", False),
        (("kubelet_conf", "certificate", "authority"), "node", True),
        (("certificate",), "node", True),
        (("running",), "node", True),
        (("kubelet_conf", "running"), "node", True),
        (("admin", "etcd", "static", "certificate"), "control plane", True),
        (("etcd",), "control plane", False),
        (("admin",), "control plane", False),
        (("admin", "etcd"), "control plane", True),
        (("static", "marker"), "control plane", False),
    ],
)
async def test_a_host_s_standing_follows_from_its_strongest_sign(
    signs: Signs,
    standing: str,
    joined: bool,  # noqa: FBT001 - a table
) -> None:
    seen = await evidence(cast("Host", KnownFacts(facts_of(signs))))
    assert (seen.standing, seen.joined, seen.unfinished) == (standing, joined, "marker" in signs)


@pytest.mark.parametrize(
    ("lacking", "whole"),
    [
        ({}, True),
        ({"admin": False}, False),
        ({"etcd": False}, False),
        ({"started_by": "te"}, False),
        ({"joining": True}, False),
    ],
)
def test_a_control_plane_is_whole_where_all_of_it_is_there_and_neither_its_init_nor_its_join_broke_off(
    lacking: dict[str, Any], *, whole: bool
) -> None:
    assert Evidence("te1", **{"admin": True, "etcd": True, **lacking}).whole is whole


def entries(path: str, **values: str) -> str:
    """Return what grep says of a kubeconfig with these values."""
    return "".join(f"{path}:    {key.replace('_', '-')}: {value}\n" for key, value in values.items())


def encoded(authority: Authority) -> str:
    """Return an authority's certificate as a kubeconfig has it."""
    return base64.b64encode(authority.certificate).decode()


@pytest.mark.parametrize("path", [KUBELET_CONF, BOOTSTRAP])
async def test_the_authority_that_a_kubelet_trusts_counts_before_the_file_and_that_before_admin_conf(path: str) -> None:
    trusted, beside = entries(path, certificate_authority_data=encoded(OURS)), THEIRS.certificate.decode()
    admins = entries(ADMIN, certificate_authority_data=encoded(OTHERS))
    for said, ca, counts in (
        (trusted + admins, beside, OURS),
        (admins, beside, THEIRS),
        (admins, None, OTHERS),
    ):
        seen = await evidence(cast("Host", KnownFacts({KUBECONFIGS: Output(0, said, ""), FileText(AUTHORITY): ca})))
        assert seen.authorities == authorities(counts.certificate.decode())


async def test_a_kubelets_own_file_counts_before_the_one_of_its_join_and_any_before_admin_conf() -> None:
    said = ""
    for path, server in ((ADMIN, "https://a"), (BOOTSTRAP, "https://b"), (KUBELET_CONF, "https://k")):
        said += entries(path, server=server)
        seen = await evidence(cast("Host", KnownFacts({KUBECONFIGS: Output(0, said, "")})))
        assert (seen.server, seen.endpoint) == (server, "https://a")


async def test_a_certificate_inside_the_kubelets_own_file_is_one_and_that_of_a_join_is_none() -> None:
    """Old releases of kubeadm write it there; a join by a discovery file has that file's credentials, no node's."""
    for path, user, standing, node in (
        (KUBELET_CONF, "system:node:te2", "node", "te2"),
        (BOOTSTRAP, "kubernetes-admin", "join broke off", ""),
    ):
        data = base64.b64encode(OURS.client(user).certificate).decode()
        configs = Output(0, entries(path, client_certificate_data=data), "")
        seen = await evidence(cast("Host", KnownFacts({FileState(path): THERE, KUBECONFIGS: configs})))
        assert (seen.standing, seen.node) == (standing, node)


async def test_a_cluster_is_named_by_what_runs_and_only_else_by_admin_confs_context() -> None:
    configs = {KUBECONFIGS: Output(0, entries(ADMIN, current_context="kubernetes-admin@te"), "")}
    assert (await evidence(cast("Host", KnownFacts(configs)))).declared == {"cluster-name": "te"}
    runs = {ARGUMENTS: Output(0, "    - --cluster-name=prod\n", "")}
    assert (await evidence(cast("Host", KnownFacts(configs | runs)))).declared == {"cluster-name": "prod"}


@pytest.mark.parametrize(("ran", "pods"), [("/proc/7/cmdline\n", ("kube-system/etcd-te1", "default/x")), ("", ())])
async def test_pods_are_named_where_some_run_and_old_logs_alone_name_none(ran: str, pods: tuple[str, ...]) -> None:
    facts: dict[Fact[Any], Any] = {PODS: Output(0, ran, ""), POD_LOGS: ("kube-system_etcd-te1_0a", "default_x_1b")}
    assert (await evidence(cast("Host", KnownFacts(facts)))).pods == pods


@pytest.mark.parametrize("name", ["kubelet.crt", "kubelet-client-current.pem.bak", "kubelet-server-current.pem"])
async def test_only_a_client_certificate_is_one(name: str) -> None:
    assert not (await evidence(cast("Host", KnownFacts({CLIENT_FOLDER: (name,)})))).certificate


async def test_the_names_and_authorities_are_read_from_public_halves_alone() -> None:
    seen = await evidence(cast("Host", KnownFacts(facts_of(("kubelet_conf", "certificate", "authority")))))
    assert (seen.node, seen.server) == ("te2", "https://192.0.2.1:6443")
    assert seen.authorities == authorities(OURS.certificate.decode()) != authorities(THEIRS.certificate.decode())
    assert node_of("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----") == ""
    assert authorities("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----") == frozenset()
    assert [address_of(one) for one in ("https://A:6443", "https://a", "rubbish", "https://[", "https://a:x")] == [
        "a:6443", "a:443", "", "", "",
    ]  # fmt: skip


def test_what_a_backup_would_show_on_a_host_has_no_address_of_the_host_that_it_was_taken_on() -> None:
    arguments = "    - --advertise-address=192.0.2.9\n    - --secure-port=6443\n"
    shown = evidence_of_files("te1", admin_conf="", manifests=arguments, authority="")
    assert (shown.standing, shown.declared.get("secure-port")) == ("control plane", "6443")
    assert "advertise-address" not in shown.declared


def test_a_kubeconfig_without_a_server_leads_nowhere() -> None:
    said = entries(ADMIN, current_context="kubernetes-admin@te") + entries(KUBELET_CONF, server="https://a:6443")
    assert read_servers(said) == {KUBELET_CONF: "https://a:6443"}


def test_a_bare_host_does_not_cost_the_import_of_a_certificate_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)  # an import of it fails
    assert node_of("") == ""


async def test_no_answer_about_running_pods_is_never_taken_for_none() -> None:
    host = KnownFacts({**facts_of(()), PODS: Output(124, "", "")})
    with pytest.raises(ShipwayError):
        await evidence(cast("Host", host))


def _evidence(host: str, standing: str, authority: str = "A") -> Evidence:
    signs: dict[str, dict[str, Any]] = {
        "nothing": {},
        "begun": {"pki": True},
        "broken": {"kubelet_conf": True},
        "node": {"kubelet_conf": True, "certificate": True, "node": host},
        "lost": {"certificate": True, "running": True, "node": host},
        "control": {"admin": True, "etcd": True, "static": ("etcd.yaml",), "certificate": True, "node": host},
    }
    own = frozenset({authority}) if standing != "nothing" else frozenset()
    return Evidence(host, authorities=own, server="https://192.0.2.1:6443", **signs[standing])


STANDINGS = st.sampled_from(["nothing", "begun", "broken", "node", "lost", "control"])


@given(st.tuples(STANDINGS, STANDINGS, STANDINGS), st.tuples(*[st.sampled_from("AB")] * 3))
@settings(max_examples=600)
def test_hosts_that_agree_with_the_file_pass_and_no_others(
    standings: tuple[str, str, str], owners: tuple[str, str, str]
) -> None:
    seen = [_evidence(f"te{at + 1}", standings[at], owners[at]) for at in range(3)]
    found = contradictions(CLUSTER, seen)
    first, *workers = seen
    joined = [one for one in workers if one.joined]
    well = (
        first.standing in ("nothing", "begun", "control plane")
        and all(one.standing != "control plane" for one in workers)
        and (not joined or first.standing == "control plane")
        and len({one.authorities for one in seen if one.standing not in ("nothing", "begun")}) < 2
    )
    assert (not found) is well, found
    assert all(fault.code and fault.fix and not fault.retryable for fault in found)


def test_what_a_kubeconfig_on_this_machine_says_counts_where_no_host_says_it() -> None:
    bare, control_plane = _evidence("te1", "nothing"), _evidence("te1", "control")
    assert [one.code for one in contradictions(CLUSTER, [bare], kept=frozenset("A"))] == ["SHW-318"]
    assert [one.code for one in contradictions(CLUSTER, [bare], kept=frozenset())] == ["SHW-318"]
    assert contradictions(CLUSTER, [bare]) == contradictions(CLUSTER, [control_plane], kept=frozenset("A")) == []
    assert [one.code for one in contradictions(CLUSTER, [control_plane], kept=frozenset("B"))] == ["SHW-320"]
    node = _evidence("te2", "node", "B")
    assert [one.code for one in contradictions(CLUSTER, [node], kept=frozenset("A"))] == ["SHW-309"]


def test_a_kubeconfig_of_another_authority_is_never_overwritten(tmp_path: Path) -> None:
    from lab.simulated.kube.pki import kubeconfig  # noqa: PLC0415 - only here

    path = tmp_path / "kubeconfig"
    texts = [kubeconfig("https://x:6443", one.certificate, "te", "a", one.client("a")) for one in (OURS, THEIRS)]
    save_kubeconfig(path, texts[0])
    save_kubeconfig(path, kubeconfig("https://x:6443", OURS.certificate, "te", "a", OURS.client("a")))
    before = path.read_text(encoding="utf-8")
    with pytest.raises(Refused, match="another cluster"):
        save_kubeconfig(path, texts[1])
    assert path.read_text(encoding="utf-8") == before != texts[0]
    path.write_text("somebody's own notes", encoding="utf-8")
    with pytest.raises(Refused):
        save_kubeconfig(path, texts[0])
    assert path.read_text(encoding="utf-8") == "somebody's own notes"


def test_the_reset_asks_for_running_pods_and_forbidden_files_in_the_process_that_resets(tmp_path: Path) -> None:
    def run(*paths: str, proc: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        script = UNUSED.replace("/proc/", f"{proc}/")  # this machine's own pods are no host's of this test
        words = ["sh", "-c", script, str(len(paths)), *paths, "echo", "was", "reset"]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)

    there, dangling = tmp_path / "there", tmp_path / "dangling"
    there.touch()
    dangling.symlink_to(tmp_path / "nowhere")
    assert run().stdout == run(str(tmp_path / "no"), str(tmp_path / "nor")).stdout == "was reset\n"
    for path in (there, dangling):
        refused = run(str(tmp_path / "no"), str(path))
        assert (refused.returncode, refused.stdout) == (FORBIDDEN, "")
        assert str(path) in refused.stderr
    shim = subprocess.Popen([sys.executable, "-c", "input()", "-namespace", "k8s.io"], stdin=subprocess.PIPE)
    try:
        while b"k8s.io" not in Path(f"/proc/{shim.pid}/cmdline").read_bytes():
            os.sched_yield()
        refused = run(proc=Path("/proc"))
    finally:
        shim.kill()
        shim.wait()
        cast("Any", shim.stdin).close()
    assert (refused.returncode, refused.stdout) == (FORBIDDEN, "")
    assert "pods run" in refused.stderr


async def test_a_joined_host_gets_its_own_name_back_and_never_another() -> None:
    joined = facts_of(("kubelet_conf", "certificate", "authority"))
    names: dict[Fact[Any], Any] = {FileText("/proc/sys/kernel/hostname"): "other\n", FileText("/etc/hostname"): "te2\n"}
    own = Machine(joined | names)
    drift = await HostnameIs("te2").check(cast("Host", own))
    assert drift is not None
    await HostnameIs("te2").apply(cast("Host", own))
    assert own.done == ["hostnamectl set-hostname -- te2"]
    host = Machine(joined | names)
    for act in (
        HostnameIs("gpu-two").check(cast("Host", host)),
        HostnameIs("gpu-two").apply(cast("Host", host)),
    ):
        with pytest.raises(Refused, match="keeps its name"):
            await act
    assert host.done == []
    bare = Machine(names)
    await HostnameIs("gpu-two").apply(cast("Host", bare))
    assert bare.done == ["hostnamectl set-hostname -- gpu-two"]


class Disturbing:
    """A step whose work would end pods."""

    name = "pods are disturbed"
    impact: ClassVar[Impact] = Impact.WORKLOADS
    applied = 0

    async def check(self, on: Any) -> Drift | None:  # noqa: ARG002 - it is never as wanted
        """Drift until it was applied."""
        return None if Disturbing.applied else Drift("old", "new")

    async def apply(self, on: Any) -> None:  # noqa: ARG002 - counted only
        """Count it."""
        Disturbing.applied += 1


class Session(KnownFacts):
    """A session that converge may use."""


@pytest.mark.parametrize(("joined", "applied"), [(True, 0), (None, 0), (False, 1)])
async def test_a_bootstrap_applies_nothing_that_ends_pods_on_a_host_that_has_joined(
    monkeypatch: pytest.MonkeyPatch,
    joined: bool | None,  # noqa: FBT001 - a table
    applied: int,
) -> None:
    """None: nobody knows whether it has."""
    monkeypatch.setattr(Disturbing, "applied", 0)
    run = Run(CLUSTER, "bootstrap")
    monkeypatch.setattr(run, "session", lambda _: Session({}))
    if joined is not None:
        run.seen.surveys["te2"] = Survey("te2", joined, 0, 0, "", False, "", "", 0.0)  # noqa: FBT003 - data
    module: Any = SimpleNamespace(steps=lambda *_: [Disturbing()])
    results: list[StepResult] = await _on_host(module, run, "any", "te2")
    assert Disturbing.applied == applied
    assert results[0].outcome == ("changed" if applied else "drifted")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with simulated_place(tmp_path, Options(hosts=2, scale=0.0)) as one:
        assert failed(await one.prepare("te1", "te2")) == []
        assert failed(await one.init()) == []
        yield one


def _resets(place: Place, host: str) -> list[tuple[str, ...]]:
    return [one.words for one in place.machine(host).ran if "kubeadm reset" in " ".join(one.words)]


async def test_a_lost_kubelet_conf_beside_running_pods_is_reported_and_never_reset(place: Place) -> None:
    assert failed(await place.join("te2")) == []
    async with asyncio.timeout(20):
        while not place.lab.link.containers(place.machine("te2")):  # noqa: ASYNC110 - the simulated kubelet starts them
            await asyncio.sleep(0.05)
    machine = place.machine("te2")
    folder = CLIENT.rsplit("/", 1)[0]
    own = [f"{folder}/{name}" for name in machine.files.names(folder) if name.startswith("kubelet-client-")]
    for paths in ([KUBELET_CONF], own):  # then the client certificates as well: running pods alone are enough
        for path in paths:
            place.lab.drift("te2", "remove", {"path": path})
        results = await place.join("te2")
        assert results[0].outcome == "failed"
        error = results[0].error
        assert error is not None
        assert error.code == "SHW-323"
        assert "kubeconfig user --org system:nodes --client-name system:node:te2" in error.fix
        assert not error.may_retry
    assert _resets(place, "te2") == []
    assert [state for _, state, _ in place.lab.link.containers(machine)].count("Running") > 0


async def test_a_join_that_timed_out_names_the_waiting_request_and_is_resumed(place: Place) -> None:
    place.lab.drift("te2", "csr-signing", {"is": "off"})
    results = await place.join("te2")
    error = results[0].error
    assert error is not None
    assert (error.code, "csr-00000" in error.message, "get csr" in error.fix) == ("SHW-326", True, True)
    files = place.machine("te2").files
    assert files.exists(KUBELET_CONF)
    assert not files.exists(CLIENT)
    place.lab.drift("te2", "csr-signing", {"is": "on"})
    assert failed(await place.join("te2")) == []
    assert len(_resets(place, "te2")) == 1
    assert place.ready()["te2"]


async def test_bootstrap_credentials_are_kept_until_the_kubelet_has_its_own() -> None:
    waiting = facts_of(("bootstrap", "kubelet_conf", "authority"))
    assert await NoBootstrapCredentials().check(cast("Host", Machine(waiting))) is None
    joined = Machine(facts_of(("bootstrap", "kubelet_conf", "authority", "certificate")))
    drift = await NoBootstrapCredentials().check(cast("Host", joined))
    assert drift is not None
    await NoBootstrapCredentials().apply(cast("Host", joined))
    assert joined.done == [f"rm -f -- {BOOTSTRAP}"]


@pytest.mark.parametrize("sign", ["kubelet_conf", "certificate", "admin", "running"])
async def test_a_host_with_any_sign_of_a_node_is_never_upgraded_as_a_whole(sign: str) -> None:
    assert await BaseUpgraded().check(cast("Host", Machine(facts_of((sign,))))) is None
    assert await BaseUpgraded().check(cast("Host", Machine(facts_of(())))) is not None
