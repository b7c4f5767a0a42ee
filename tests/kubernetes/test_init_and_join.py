"""An init and a join look again right before they act, refuse by their own code, and leave no secret behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from shipway.cluster.parts import ApiEndpoint
from shipway.errors import ApiUnavailable, Blocked, Permanent, Refused, ShipwayError, Transient
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.services import UnitInfo, UnitState
from shipway.host.session import Host
from shipway.os.debian.dpkg import Package
from shipway.ownership.evidence import ADMIN, AUTHORITY, BOOTSTRAP, CLIENT, CLIENT_FOLDER, ETCD, MANIFESTS, PKI, STARTED
from shipway.script import Output
from shipway.step import Drift
from shipway.steps.kubernetes.endpoint import proof
from shipway.steps.kubernetes.init import ControlPlaneInitialised, Seen, decide
from shipway.steps.kubernetes.join.worker import NoBootstrapCredentials, NodeJoined
from shipway.steps.kubernetes.leftovers import INTERFACES
from shipway.steps.kubernetes.reset import FORBIDDEN, OF_NO_WORKER, reset
from tests.ownership.test_ownership import CLUSTER, OURS, THEIRS, THERE, Machine, _node_asked, _reached, facts_of
from tests.places.facts import DEBIAN

READY = Says(("curl", "-sk", "--max-time", "8", "https://127.0.0.1:6443/readyz"))
AT_WORK = UnitInfo("loaded", "active", "running", "", 1, needs_reload=False)
OWN_PKI = ("ca.crt", "ca.key", "sa.key", "sa.pub", "etcd")
DRIFT = Drift("a", "b")
BEGUN = ("static", "authority", "keys", "marker")
TOKEN = "abcdef.0123456789abcdef"  # noqa: S105 - none


class Acting(Machine):
    """A host on which everything ends well, or with this answer; it notes what was waited for and forgotten."""

    def __init__(self, facts: dict[Fact[Any], Any], answer: Output | None = None) -> None:
        super().__init__(facts)
        self.answer, self.modes, self.forgotten = answer or Output(0, "", ""), dict[str, str](), 0

    async def operate(self, name: str, words: Sequence[str], **more: Any) -> Output:
        """Keep what was to be run; a reset ends well."""
        self.done.append(f"{name}: {' '.join(words)}")
        self.options = more
        return Output(0, "", "") if "reset" in name else self.answer

    async def settled(self, *names: str, **_: Any) -> None:
        """Keep what was waited for."""
        self.done.append(f"settled {' '.join(names)}")

    async def write(self, path: str, content: bytes, **options: str) -> None:
        """Keep what was to be written, with its mode."""
        await super().write(path, content)
        self.modes[path] = options.get("mode", "")
        self.done.append(f"write {path}")

    def forget(self) -> None:
        """Note it."""
        self.forgotten += 1


def first(*signs: str, **more: Any) -> Acting:
    """Return a host that shows these signs of a control plane."""
    return Acting({**facts_of(signs, "te1"), **more.pop("facts", {})}, **more)


def initialising(*, consent: bool = False) -> ControlPlaneInitialised:
    return ControlPlaneInitialised(CLUSTER, CLUSTER.host("te1"), DEBIAN, consent)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ({"etcd_data": True, "admin": True}, "down"),
        ({"etcd_data": True, "client": True}, "foreign"),
        ({"admin": True, "client": True}, "foreign"),
        ({"running": True}, "foreign"),
        ({"admin": True, "started_by": "te"}, "resettable"),
        ({"certificates": True, "started_by": "te"}, "resettable"),
        ({"client": True, "started_by": "te"}, "foreign"),
        ({"etcd_data": True, "started_by": "other", "complete": True}, "foreign"),
        ({"admin": True, "etcd_data": True, "started_by": "te"}, "foreign"),
        ({"admin": True, "manifests": True, "ready": True}, "foreign"),
    ],
)
def test_each_sign_alone_keeps_an_init_from_a_host(seen: dict[str, Any], state: str) -> None:
    bare = dict.fromkeys(("admin", "etcd_data", "manifests", "certificates", "ready"), False)
    assert decide(Seen(**{**bare, "started_by": None, **seen}), "te") == state


@pytest.mark.parametrize("act", ["check", "apply"])
@pytest.mark.parametrize(
    ("signs", "consent", "code"),
    [
        (("etcd",), False, "SHW-101"),
        (("static",), False, "SHW-101"),
        (("certificate",), False, "SHW-325"),
        (("etcd", "running"), False, "SHW-325"),
        (("etcd",), True, ""),
    ],
)
async def test_what_no_init_of_ours_left_is_refused_before_and_in_the_act(
    signs: tuple[str, ...], code: str, act: str, *, consent: bool
) -> None:
    host, step = first(*signs), initialising(consent=consent)
    work = step.check(cast("Host", host)) if act == "check" else step.apply(cast("Host", host))
    if code:
        with pytest.raises(Refused) as refused:
            await work
        assert (refused.value.code, host.resets) == (code, [])
        assert ("--reset te1" in refused.value.fix) is (code == "SHW-101")
    else:
        await work
        assert len(host.resets) == (act == "apply")


@pytest.mark.parametrize("sign", ["certificate", "running"])
async def test_no_consent_counts_where_a_kubelet_has_joined_or_pods_run(sign: str) -> None:
    with pytest.raises(Refused) as refused:
        await initialising(consent=True).check(cast("Host", first("etcd", sign)))
    assert refused.value.code == "SHW-325"


async def test_a_refusal_names_what_is_there_and_nothing_else() -> None:
    with pytest.raises(Refused) as refused:
        await initialising().check(cast("Host", first("etcd", "static")))
    assert refused.value.message.startswith("etcd data, static pods of a control plane: no interrupted run")


async def test_without_kubeadm_nothing_is_decided() -> None:
    with pytest.raises(Blocked):
        await initialising().check(cast("Host", first(facts={Package("kubeadm"): None})))


async def test_an_initialised_control_plane_is_left_alone_whether_its_api_answers_or_not() -> None:
    ready = first("admin", "etcd", facts={READY: Output(0, "ok", "")})
    assert await initialising().check(cast("Host", ready)) is None
    with pytest.raises(ApiUnavailable):
        await initialising().check(cast("Host", first("admin", "etcd")))
    for host in (ready, first("admin", "etcd"), first(facts={UnitState("shipway-kubeadm-init.service"): AT_WORK})):
        with pytest.raises(Transient) as again:
            await initialising().apply(cast("Host", host))
        assert again.value.code == "SHW-205"
        assert [one for one in host.done if not one.startswith("settled")] == []


async def test_an_init_waits_for_one_at_work_marks_itself_first_and_leaves_no_settings_behind() -> None:
    host = first()
    await initialising().apply(cast("Host", host))
    order = [one.split(" --")[0] for one in host.done]
    assert order[0] == "settled kubeadm-init kubeadm-reset"
    assert order[-2] == "kubeadm-init: kubeadm init"
    assert order.index(f"write {STARTED}") == len(order) - 3, "the marker is there before kubeadm begins"
    assert host.written[STARTED] == "te\n"
    assert set(host.modes.values()) == {"600"}
    (config,) = set(host.written) - {STARTED}
    assert "kind: InitConfiguration" in host.written[config]
    assert f"--config {config} " in host.done[-2]
    assert order[-1].startswith("rm -f ")
    assert host.options["marker"] == STARTED
    assert host.resets == []


@pytest.mark.parametrize(
    ("host", "state"),
    [
        (first(), "bare"),
        (first(*BEGUN), "resettable"),
        (first("etcd", "marker", facts={Listing(PKI): OWN_PKI}), "resumable"),
        (first(facts={UnitState("shipway-kubeadm-init.service"): AT_WORK}), "at work"),
    ],
)
async def test_what_may_be_initialised_is_a_drift_and_no_refusal(host: Acting, state: str) -> None:
    drift = await initialising().check(cast("Host", host))
    assert drift == Drift(f"{state} host", "initialised, API ready")


async def test_what_an_init_of_ours_left_before_anything_ran_is_reset_and_only_that() -> None:
    host = first(*BEGUN)
    await initialising().apply(cast("Host", host))
    assert len(host.resets) == 1
    assert not [one for one in host.done if "--ignore-preflight-errors" in one]


async def test_an_init_that_had_begun_to_run_is_gone_on_with_past_its_own_files_and_ports_alone() -> None:
    facts: dict[Fact[Any], Any] = {
        Listing(PKI): OWN_PKI,
        Listing(MANIFESTS): ("etcd.yaml", "mine.yaml"),
    }
    host = first("etcd", "marker", facts=facts)
    await initialising().apply(cast("Host", host))
    assert host.resets == []
    (ran,) = [one for one in host.done if one.startswith("kubeadm-init:")]
    assert ran.partition("--ignore-preflight-errors=")[2].split(",") == [
        "FileAvailable--etc-kubernetes-manifests-etcd.yaml",
        *(f"Port-{port}" for port in (6443, 10250, 10257, 10259, 2379, 2380)),
        "DirAvailable--var-lib-etcd",
    ]
    for missing in OWN_PKI:
        lacking = {**facts, Listing(PKI): tuple(name for name in OWN_PKI if name != missing)}
        with pytest.raises(Refused):
            await initialising().check(cast("Host", first("etcd", "marker", facts=lacking)))


async def test_an_init_that_fails_keeps_its_marker_and_raises() -> None:
    host = first(answer=Output(1, "", "it broke"))
    with pytest.raises(ShipwayError):
        await initialising().apply(cast("Host", host))
    assert STARTED in host.written


class Leader(Acting):
    """The control plane's host: it makes a token, and has no node te2."""

    def __init__(self, *, node: str = "", status: int = 0, token: str = TOKEN, ca: str | None = "ours") -> None:
        facts: dict[Fact[Any], Any] = {_node_asked(): Output(status, node, "refused" if status else "")}
        if ca is not None:
            facts[FileText(AUTHORITY)] = {"ours": OURS, "theirs": THEIRS}[ca].certificate.decode()
        super().__init__(facts)
        self.token = token

    async def do(self, *commands: Any) -> list[Output]:
        """Make a token; keep the rest."""
        self.done += [" ".join(command.words) for command in commands]
        return [Output(0, f"W1128 a warning\n{self.token}\n" if "create" in c.words else "", "") for c in commands]


def worker(*signs: str, node: str = "te2", answer: Output | None = None, **facts: Any) -> Acting:
    """Return a host that shows these signs of a worker."""
    known = {**facts_of(signs, node, facts.pop("authority", OURS)), _reached(): Output(0, "200", "")}
    return Acting({**known, **facts.pop("facts", {})}, answer)


def joining(leader: Machine) -> NodeJoined:
    return NodeJoined(CLUSTER, CLUSTER.host("te2"), DEBIAN, cast("Host", leader))


JOINED = ("kubelet_conf", "certificate", "authority")
BROKEN = ("kubelet_conf", "bootstrap", "authority")


async def test_a_node_of_this_cluster_has_joined_and_one_that_is_bare_or_broke_off_has_not() -> None:
    assert await joining(Leader()).check(cast("Host", worker(*JOINED))) is None
    for signs in ((), ("authority", "keys"), ("marker",)):
        drift = await joining(Leader()).check(cast("Host", worker(*signs)))
        assert drift == Drift("not joined", "joined")
    drift = await joining(Leader()).check(cast("Host", worker(*BROKEN)))
    assert drift is not None
    assert "broke off" in drift.have
    with pytest.raises(Blocked):
        await joining(Leader()).check(cast("Host", worker(facts={Package("kubeadm"): None})))


@pytest.mark.parametrize("ca", ["ours", None])
async def test_where_nobody_knows_the_authority_a_join_is_no_refusal(ca: str | None) -> None:
    assert await joining(Leader(ca=ca)).check(cast("Host", worker(*JOINED))) is None
    assert await joining(Leader(ca=ca)).check(cast("Host", worker("certificate", "kubelet_conf"))) is None


@pytest.mark.parametrize(
    ("host", "code"),
    [
        (worker("admin", *JOINED), "SHW-317"),
        (worker(*JOINED, authority=THEIRS), "SHW-309"),
        (worker(*BROKEN, authority=THEIRS), "SHW-309"),
        (worker(*JOINED, node="gpu-two"), "SHW-321"),
        (worker("certificate", "authority"), "SHW-323"),
        (worker("running"), "SHW-323"),
    ],
)
async def test_a_host_that_is_no_free_worker_is_refused_when_it_is_looked_at(host: Acting, code: str) -> None:
    with pytest.raises(Refused) as refused:
        await joining(Leader()).check(cast("Host", host))
    assert refused.value.code == code


async def test_a_host_whose_kubelet_conf_is_lost_gets_said_what_is_there_and_the_command_of_its_version() -> None:
    with pytest.raises(Refused) as refused:
        await joining(Leader()).check(cast("Host", worker("certificate", "running")))
    assert "its client certificate and running pods" in refused.value.message
    assert "system:node:te2 " in refused.value.fix
    for sign, said in (("certificate", "running pods"), ("running", "client certificate")):
        with pytest.raises(Refused) as refused:
            await joining(Leader()).check(cast("Host", worker(sign)))
        assert said not in refused.value.message
        assert "system:node:te2 " in refused.value.fix


@pytest.mark.parametrize(("version", "alpha"), [("1.21.14", True), ("1.22.0", False), ("1.36.2", False)])
async def test_the_command_that_makes_a_kubelet_conf_is_that_of_the_version(version: str, *, alpha: bool) -> None:
    kubernetes = CLUSTER.kubernetes.model_copy(update={"version": version})
    cluster = CLUSTER.model_copy(update={"kubernetes": kubernetes})
    step = NodeJoined(cluster, cluster.host("te2"), DEBIAN, cast("Host", Leader()))
    with pytest.raises(Refused) as refused:
        await step.check(cast("Host", worker("running")))
    assert ("kubeadm alpha kubeconfig" in refused.value.fix) is alpha


async def test_a_host_that_joined_since_the_look_is_looked_at_again() -> None:
    host = worker(*JOINED)
    with pytest.raises(Transient) as again:
        await joining(Leader()).apply(cast("Host", host))
    assert (again.value.code, host.resets) == ("SHW-205", [])


@pytest.mark.parametrize(
    ("host", "leader", "code"),
    [
        (worker(*BROKEN, authority=THEIRS), Leader(), "SHW-309"),
        (worker("static"), Leader(), "SHW-317"),
        (worker(*BROKEN, "keys"), Leader(), "SHW-325"),
        (worker("keys"), Leader(), "SHW-325"),
        (worker("authority", "marker"), Leader(), "SHW-325"),
        (worker(*BROKEN), Leader(node="node/te2\n"), "SHW-323"),
        (worker(*BROKEN), Leader(status=1), None),
    ],
)
async def test_right_before_a_join_whatever_it_would_reset_is_asked_again(
    host: Acting, leader: Leader, code: str | None
) -> None:
    with pytest.raises(ShipwayError) as refused:
        await joining(leader).apply(cast("Host", host))
    if code:
        assert refused.value.code == code
    else:
        assert isinstance(refused.value, ApiUnavailable)
    assert host.resets == []
    assert not [one for one in host.done if "kubeadm join" in one]


async def test_a_join_that_broke_off_is_reset_only_where_nothing_of_a_node_is_there_and_the_api_is_asked_anew() -> None:
    host, leader = worker(*BROKEN), Leader()
    await joining(leader).apply(cast("Host", host))
    (one,) = host.resets
    assert all(path in one for path in OF_NO_WORKER)
    assert set(OF_NO_WORKER) == {CLIENT, ADMIN, ETCD}
    assert leader.forgotten == 1
    marked = worker("marker")
    await joining(Leader()).apply(cast("Host", marked))
    assert len(marked.resets) == 1


async def test_a_bare_host_joins_without_a_reset_waits_for_a_join_at_work_and_leaves_no_token() -> None:
    host, leader = worker(), Leader()
    await joining(leader).apply(cast("Host", host))
    assert host.done[0] == "settled kubeadm-join kubeadm-reset"
    assert host.resets == []
    (path,) = host.written
    assert host.modes[path] == "600"
    assert TOKEN in host.written[path]
    assert f"rm -f {path}" in host.done
    assert [one for one in leader.done if "token delete" in one] == [
        f"kubeadm token delete --kubeconfig {ADMIN} abcdef"
    ]
    assert not [one for one in (*host.done, *leader.done) if TOKEN in one]


async def test_a_join_that_failed_says_so_and_leaves_no_token() -> None:
    host, leader = worker(answer=Output(1, "", "it broke")), Leader()
    with pytest.raises(ShipwayError):
        await joining(leader).apply(cast("Host", host))
    assert [one for one in leader.done if "token delete" in one]
    assert [one for one in host.done if one.startswith("rm -f ")]


async def test_without_a_way_to_the_api_or_an_authority_no_token_is_made() -> None:
    away, leader = worker(facts={_reached(): Output(7, "", "")}), Leader()
    with pytest.raises(ApiUnavailable) as error:
        await joining(leader).apply(cast("Host", away))
    assert (error.value.code, leader.done) == ("SHW-206", [])
    none = Leader(ca=None)
    with pytest.raises(Blocked):
        await joining(none).apply(cast("Host", worker()))
    assert none.done == []


async def test_an_endpoint_of_the_sites_is_proved_from_the_host_before_a_token_is_made() -> None:
    """Without it the join of a worker would send its token to whatever answers there."""
    endpoint = ApiEndpoint(kind="external", name="lb.example", port=443)
    kubernetes = CLUSTER.kubernetes.model_copy(update={"api_endpoint": endpoint})
    cluster, leader = CLUSTER.model_copy(update={"kubernetes": kubernetes}), Leader()
    shown = proof("https://lb.example:443/livez", OURS.certificate.decode())
    answers = Says((*_reached().command[:-1], "https://lb.example:443/livez"))
    host = worker(facts={answers: Output(0, "200", ""), shown: Output(60, "", "curl: certificate")})
    with pytest.raises(Permanent) as error:
        await NodeJoined(cluster, cluster.host("te2"), DEBIAN, cast("Host", leader)).apply(cast("Host", host))
    assert (error.value.code, leader.done) == ("SHW-771", [])


@pytest.mark.parametrize("token", ["", "no token", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde"])
async def test_what_is_no_token_is_never_written(token: str) -> None:
    host = worker()
    with pytest.raises(Transient) as error:
        await joining(Leader(token=token)).apply(cast("Host", host))
    assert (error.value.code, host.written) == ("SHW-210", {})


ROWS = (
    "csr-1 system:bootstrap:abcdef <none>\n"
    "csr-2 system:bootstrap:abcdef Approved\n"
    "csr-3 system:node:te3 <none>\n"
    "odd system:bootstrap:abcdef\n"
)


@pytest.mark.parametrize(
    ("listed", "named"), [(Output(0, ROWS, ""), True), (Output(1, ROWS, ""), False), (Output(0, "", ""), False)]
)
async def test_only_a_request_of_a_join_that_waits_is_named(listed: Output, *, named: bool) -> None:
    columns = "custom-columns=NAME:.metadata.name,USER:.spec.username,CONDITIONS:.status.conditions[*].type"
    words = ("kubectl", "--kubeconfig", ADMIN, "get", "csr", "--no-headers", "-o", columns)
    leader = Leader()
    leader.facts[Says(words)] = listed
    with pytest.raises(ShipwayError) as error:
        await joining(leader).apply(cast("Host", worker(answer=Output(1, "", "timed out"))))
    assert ("requests of joins: csr-1" in error.value.message) is named
    assert (error.value.code == "SHW-326") is named
    assert "csr-2" not in error.value.message
    assert "csr-3" not in error.value.message
    assert leader.forgotten == 1


class Resetting(Acting):
    """A host whose reset ends so."""

    async def operate(self, name: str, words: Sequence[str], **_: Any) -> Output:
        """Answer."""
        self.done.append(f"{name}: {' '.join(words)}")
        return self.answer


async def test_a_reset_that_was_forbidden_or_failed_removes_nothing_and_none_takes_a_packages_mark() -> None:
    for output, code in (
        (Output(FORBIDDEN, "", "not reset: pods run here\n"), "SHW-324"),
        (Output(FORBIDDEN, "", ""), "SHW-324"),
        (Output(1, "", "kubeadm broke"), None),
    ):
        host = Resetting({}, output)
        with pytest.raises(ShipwayError) as refused:
            await reset(cast("Host", host))
        assert len(host.done) == 1
        if code:
            assert isinstance(refused.value, Refused)
            assert refused.value.code == code
            assert refused.value.message == (output.stderr.strip() or "not reset: the host is in use")
    names = (".kubernetes-cni-keep", "10-calico.conflist")
    host = Resetting({Listing("/etc/cni/net.d"): names, INTERFACES: ("eth0", "cni0")})
    await reset(cast("Host", host))
    assert f"rm -rf -- {STARTED} /etc/cni/net.d/10-calico.conflist" in host.done
    assert CLIENT in host.done[0]
    assert host.done[-1] == "ip link delete cni0"


@pytest.mark.parametrize(
    ("left", "client", "removed"), [(True, True, True), (True, False, False), (False, True, False)]
)
async def test_bootstrap_credentials_go_only_where_the_kubelet_has_its_own(
    *, left: bool, client: bool, removed: bool
) -> None:
    names = ("kubelet-client-1.pem",) if client else ()
    host = Acting({FileState(BOOTSTRAP): THERE if left else None, CLIENT_FOLDER: names})
    step = NoBootstrapCredentials()
    drift = await step.check(cast("Host", host))
    assert (drift is not None) is removed
    if drift:
        await step.apply(cast("Host", host))
    assert host.done == ([f"rm -f -- {BOOTSTRAP}"] if removed else [])
