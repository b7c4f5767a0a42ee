"""The CAs of etcd and of the front proxy: their files, who reads them, and what is asked of a host and of the API."""

from __future__ import annotations

import base64
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from shipway.converge import look_at_all
from shipway.errors import ApiUnavailable
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileText, Listing
from shipway.kubeadm.certificates import LEAFS
from shipway.kubeadm.writes import ETC, MANIFESTS, PKI, static_pod_args
from shipway.ownership.evidence import AUTHORITY, certificates_in
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.authority.etcd import EtcdStacked, KeysRead, MembersHealthy, MembersKnown, count_of
from shipway.steps.authority.front_proxy import (
    PUBLISHED,
    ExtensionsAnswer,
    ExtensionsAvailable,
    ExtensionsTold,
    FrontProxyTaken,
    list_extensions,
    paths_of,
)
from shipway.steps.authority.leafs import LeafsSigned, SignedBy
from shipway.steps.authority.left import NoneLeftBehind, kept_of, left_behind
from shipway.steps.authority.objects import readers_of_files
from shipway.steps.authority.own_server import OwnServer
from shipway.steps.authority.pair import MAKE, Pair, PairKept, PairThere, SignerIs, paired, said, trusted_by, who
from shipway.steps.authority.possible import KeyThere, NoRotation
from shipway.steps.authority.signing import FilesReadByUs
from shipway.steps.authority.trust import Accepts, AuthorityTrusted, Serves
from shipway.steps.authority.which import ALL, CLUSTER_CA, ETCD_CA, FRONT_PROXY, Which
from shipway.steps.kubernetes import etcd_members
from shipway.steps.kubernetes.etcd_members import MEMBERS, health, version
from tests.kubernetes.test_authority import Objects, Written, ask, codes, made, manifest, pair, pod, run, serving, sign
from tests.kubernetes.test_authority import answer as answered
from tests.kubernetes.test_move_endpoint import Shell
from tests.ownership.test_leading import cluster
from tests.places.facts import KnownFacts

__all__ = ["made", "pair"]  # fixtures
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
FILES = CLUSTER_CA.files
OTHERS = pytest.mark.parametrize("of", [ETCD_CA, FRONT_PROXY], ids=lambda of: of.word)
SERVER = OwnServer("10.9.0.1", 6443)


# --- which


WORDS = ("cluster", "etcd", "front-proxy", "service-accounts")


def test_files_of_each_lie_apart_and_every_certificate_of_kubeadms_has_one_that_signs_it() -> None:
    names = ("ca.crt", "etcd/ca.crt", "front-proxy-ca.crt", "sa.pub")
    assert [one.path for one in ALL.values()] == [f"{PKI}/{name}" for name in names]
    inside = ("ca", "etcd-ca", "front-proxy-ca", "sa")
    assert [one.folder for one in ALL.values()] == [f"{PKI}/shipway-{name}" for name in inside]
    assert [one.kept for one in ALL.values()] == [f"{ETC}/before-renewal-{name}-" for name in inside]
    assert [one.subject for one in ALL.values()] == [
        "kubernetes-ca-",
        "etcd-ca-",
        "front-proxy-ca-",
        "before-renewal-sa-",
    ]
    assert sorted(leaf.name for one in ALL.values() for leaf in one.leafs) == sorted(leaf.name for leaf in LEAFS)
    assert {word: one.word for word, one in ALL.items()} == {one: one for one in WORDS}


@OTHERS
def test_the_flags_that_are_asked_for_are_those_that_kubeadm_writes(of: Which) -> None:
    file = cluster(3)
    written = static_pod_args(file, file.control_planes[0])
    assert {(part, flag): written[part][flag] for part, flag, _ in of.flags} == {
        (part, flag): path for part, flag, path in of.flags
    }
    assert {part for part, _, _ in of.flags} == set(of.readers)


def flagged(of: Which, **others: str) -> dict[Fact[Any], Any]:
    """Return what static pods run with by kubeadm, with another value for flags of these names."""
    parts: dict[str, dict[str, str]] = {part: {} for part in of.readers}
    for part, flag, path in of.flags:
        name = flag.replace("-", "_")
        parts[part][name] = others.get(name, path)
    facts: dict[Fact[Any], Any] = {}
    for part, flags in parts.items():
        facts |= manifest(part, **flags)
    return facts


@OTHERS
async def test_who_reads_it_from_elsewhere_is_named(of: Which) -> None:
    assert await codes(FilesReadByUs(of), flagged(of)) == ""
    for part, flag, _ in of.flags:
        wrong = flagged(of, **{flag.replace("-", "_"): "/etc/site/x"})
        (result,) = await look_at_all([FilesReadByUs(of)], KnownFacts(wrong))  # type: ignore[list-item]
        assert result.error is not None
        assert result.error.code == "SHW-852"
        assert f"{part} --{flag}: /etc/site/x" in result.error.message
    silent = {**flagged(FRONT_PROXY), **manifest("kube-controller-manager")}
    assert await codes(FilesReadByUs(FRONT_PROXY), silent) == ""  # it asks nobody for a front proxy's certificate then


# --- the pair


@OTHERS
async def test_a_new_one_is_named_as_kubeadm_does_and_becomes_the_signer_of_real_files(
    tmp_path: Path, of: Which
) -> None:
    base, folder = tmp_path / of.name, tmp_path / of.inside
    base.parent.mkdir(exist_ok=True)
    certificate, key = sign(base.parent, base.name), base.with_suffix(".key")
    before = certificate.read_text()
    run("bash", "-c", MAKE, "bash", str(folder), str(base), f"{of.subject}20261130T120000Z", "3650", of.common)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    shown = run("openssl", "x509", "-noout", "-text", "-in", str(folder / "new.crt"))
    assert f"{of.common}-20261130T120000Z" in shown
    assert f"DNS:{of.common}" in shown
    both = Pair((folder / "old.crt").read_text(), (folder / "new.crt").read_text(), of=of)
    assert both.old == before
    fits = {FileText(of.path): both.old + both.new, paired(of.path, of.key): answered("")}
    seen = await SignerIs(both).check(KnownFacts(fits))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == said([who(both.old)])
    await SignerIs(both).apply(Shell(fits, {of.folder: folder, of.base: base}))  # type: ignore[arg-type]
    assert trusted_by(certificate.read_text()) == [who(both.new), who(both.old)]
    assert ask(paired(str(certificate), str(key))).ok
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in base.parent.iterdir() if path.name.startswith(".")] == []


@OTHERS
async def test_it_is_made_trusted_and_put_aside_at_its_own_place(pair: Pair, of: Which) -> None:
    host = Written({})
    await PairThere(of=of).apply(host)  # type: ignore[arg-type]
    assert f"{of.folder} {of.base} {of.subject}20" in host.done[0]
    assert host.done[0].endswith(f" 3650 {of.common}")
    trusts = AuthorityTrusted(pair.both, of=of)
    alone = KnownFacts({FileText(of.path): pair.old, FileText(AUTHORITY): pair.old + pair.new})
    assert await trusts.check(alone) is not None  # type: ignore[arg-type]
    await trusts.apply(alone)  # type: ignore[arg-type]
    assert list(alone.written) == [of.path]
    assert trusted_by(alone.written[of.path]) == [who(pair.old), who(pair.new)]
    there = KnownFacts({Listing(PKI): ("ca.crt", of.inside)})
    assert await PairKept(CLUSTER_CA).check(there) is None  # type: ignore[arg-type]
    assert await PairKept(of).check(there) is not None  # type: ignore[arg-type]
    await PairKept(of).apply(there)  # type: ignore[arg-type]
    assert there.done[0].startswith(f"mv -T -- {of.folder} {of.kept}20")


@pytest.mark.parametrize(
    ("of", "names"),
    [
        (ETCD_CA, "apiserver-etcd-client etcd-server etcd-peer etcd-healthcheck-client"),
        (FRONT_PROXY, "front-proxy-client"),
    ],
)
async def test_kubeadm_renews_what_it_had_this_one_sign_by_its_own_names(pair: Pair, of: Which, names: str) -> None:
    step = LeafsSigned(Pair(pair.old, pair.new, of=of))
    assert await step.check(Written({SignedBy(pair.new, leaf.path): True for leaf in of.leafs})) is None  # type: ignore[arg-type]
    for signed in (False, None):  # what is not there is another's as well: with etcd here all of them are
        host = Written({SignedBy(pair.new, leaf.path): signed for leaf in of.leafs})
        seen = await step.check(host)  # type: ignore[arg-type]
        assert seen is not None
        assert seen.have == names.replace(" ", ", ")
        await step.apply(host)  # type: ignore[arg-type]
        assert host.done[0].endswith(f"certs renew {names}")


# --- ports that want a client's certificate


class Here(KnownFacts):
    """A host whose programs are those of this machine."""

    async def read_all(self, facts: Any) -> list[Any]:
        """Run them."""
        return [ask(fact) for fact in facts]


@pytest.mark.long
@pytest.mark.parametrize("tls", ["-tls1_2", "-tls1_3"])  # etcd 3.4 speaks the former alone
async def test_a_port_that_turns_us_away_has_shown_itself_and_whom_it_accepts(made: Path, pair: Pair, tls: str) -> None:
    old, new = made / CLUSTER_CA.inside / "old.crt", made / CLUSTER_CA.inside / "new.crt"
    for signer, accepted, answers in (
        ("by-old", (old, new), ("accepted", "accepted")),
        ("by-new", (new,), ("not accepted", "accepted")),
    ):
        with serving(made, signer, *accepted, asks="-Verify", more=(tls,)) as port:
            assert tuple(ask(Accepts(one, "127.0.0.1", port)) for one in pair.both) == answers
            good = {one: await Serves(one, "127.0.0.1", port, asks=True).check(Here({})) for one in pair.both}  # type: ignore[arg-type]
            assert (good[pair.old] is None, good[pair.new] is None) == (signer == "by-old", signer == "by-new")
    assert await Serves(pair.new, "127.0.0.1", 1, asks=True).check(Here({})) is not None  # type: ignore[arg-type]


# --- what forbids it


async def test_one_rotation_at_a_time_and_each_is_known_by_its_folder(pair: Pair) -> None:
    assert await codes(NoRotation(), {Listing(PKI): ("ca.crt", "etcd")}) == ""
    for of in ALL.values():
        begun = {Listing(PKI): ("ca.crt", of.inside)}
        assert [await codes(NoRotation(besides), begun) for besides in (None, *ALL.values())] == [
            "SHW-856",
            *("" if besides is of else "SHW-856" for besides in ALL.values()),
        ]
        (result,) = await look_at_all([NoRotation()], KnownFacts(begun))  # type: ignore[list-item]
        assert result.error is not None
        assert f"`{of.command} --back`" in result.error.fix
    both = {FileText(AUTHORITY): pair.old + pair.new, Listing(PKI): ("ca.crt",)}
    assert await codes(NoRotation(ETCD_CA), both) == "SHW-856"
    assert ETCD_CA.command == "shipway rotate-ca FILE --of etcd"
    assert CLUSTER_CA.command == "shipway rotate-ca FILE"


@OTHERS
async def test_without_its_own_key_nothing_begins(of: Which) -> None:
    folder, _, file = of.key.rpartition("/")
    fits, not_its = {paired(of.path, of.key): answered("")}, {paired(of.path, of.key): answered("", 1)}
    assert await codes(KeyThere(of), {Listing(folder): (file,), **fits}) == ""
    assert await codes(KeyThere(of), {Listing(folder): (), **fits}) == "SHW-851"
    assert await codes(KeyThere(of), {Listing(folder): (file,), **not_its}) == "SHW-851"
    halves = {Listing(folder): (file, of.inside), Listing(PKI): (file, of.inside), **not_its}
    assert await codes(KeyThere(of), halves) == ""  # a kill between two moves


@pytest.mark.parametrize(
    ("names", "reads", "code"),
    [
        (("etcd.yaml",), ETCD_CA.path, ""),
        ((), ETCD_CA.path, ""),  # moved away by a restart that broke off: a manifest that is lost is another finding
        (("etcd.yaml",), "/etc/site/etcd-ca.pem", ""),  # it is here, and another check names the file
        (("kube-apiserver.yaml",), "/etc/site/etcd-ca.pem", "SHW-858"),
        (("kube-apiserver.yaml",), "", "SHW-858"),
    ],
)
async def test_an_etcd_elsewhere_is_its_owners(names: tuple[str, ...], reads: str, code: str) -> None:
    api = manifest("kube-apiserver", etcd_servers="https://etcd.site:2379", etcd_cafile=reads)
    facts = {**api, Listing(MANIFESTS): names}
    (result,) = await look_at_all([EtcdStacked()], KnownFacts(facts))  # type: ignore[list-item]
    assert (result.error.code if result.error else "") == code
    assert not code or "https://etcd.site:2379" in result.error.message  # type: ignore[union-attr]


def members(*ill: str, **more: Any) -> dict[Fact[Any], Any]:
    """Return the answers of three members, of which some are not healthy."""
    found, facts = [], dict[Fact[Any], Any]()
    for number, name in enumerate(("cp1", "cp2", "cp3"), 1):
        url = f"https://10.9.0.{number}:2379"
        found.append({"ID": str(number), "name": name, "peerURLs": [f"https://10.9.0.{number}:2380"]})
        found[-1] |= {"clientURLs": [url], **more.get(name, {})}
        facts[health(url)] = answered(json.dumps({"health": "false" if name in ill else "true"}))
        facts[version(url)] = answered(json.dumps({"etcdserver": "3.5.16"}))
    return {MEMBERS: answered(json.dumps({"members": found})), **facts}


async def test_a_member_whose_files_are_not_replaced_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_members, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(etcd_members, "EVERY_SECONDS", 0.0)
    where = ["10.9.0.1", "10.9.0.2", "10.9.0.3"]
    assert await codes(MembersKnown(["cp1", "cp2", "cp3"], []), members()) == ""
    assert await codes(MembersKnown([], where), members()) == ""
    assert await codes(MembersKnown(["cp1", "cp2"], where[:2]), members()) == "SHW-858"
    with pytest.raises(ApiUnavailable):
        await MembersKnown([], []).check(KnownFacts({}))  # type: ignore[arg-type]


async def test_every_voter_is_healthy_before_the_next_one_is_stopped() -> None:
    assert await MembersHealthy().check(KnownFacts(members())) is None  # type: ignore[arg-type]
    seen = await MembersHealthy().check(KnownFacts(members("cp2")))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == "cp2 (not healthy)"
    learner = members("cp2", cp2={"isLearner": True})
    assert await MembersHealthy().check(KnownFacts(learner)) is None  # type: ignore[arg-type]
    with pytest.raises(ApiUnavailable):
        await MembersHealthy().check(KnownFacts({}))  # type: ignore[arg-type]


# --- what goes on by it


SPACES = SERVER.get("namespaces", "-o", "name")


@pytest.mark.parametrize(
    ("told", "kept", "good"),
    [
        (answered("namespace/a\nnamespace/b\n"), '{"count": "2"}', True),
        (answered("namespace/a\n"), '{"count": "2"}', False),
        (Output(1, "", "the server was unable to return a response"), '{"count": "2"}', False),
        (answered(""), '{"header": {}}', False),  # none at all is no proof of anything
        (answered("namespace/a\n"), "no JSON", False),
        (answered("namespace/a\n"), "[]", False),
    ],
)
async def test_an_api_server_reads_as_many_keys_as_its_etcd_has(told: Output, kept: str, good: bool) -> None:  # noqa: FBT001
    for prefix, flags in (("/registry", {}), ("/site", {"etcd_prefix": "/site/"})):
        facts: dict[Fact[Any], Any] = manifest("kube-apiserver", **flags)
        facts |= {SPACES: told, count_of(f"{prefix}/namespaces/"): answered(kept)}
        assert (await KeysRead(SERVER).check(KnownFacts(facts)) is None) is good  # type: ignore[arg-type]
    asked = json.loads(count_of("/registry/namespaces/").command[-2])
    assert (base64.b64decode(asked["key"]), base64.b64decode(asked["range_end"]), asked["count_only"]) == (
        b"/registry/namespaces/",
        b"/registry/namespaces0",
        True,
    )


@pytest.mark.parametrize(("code", "good"), [("200", True), ("401", False), ("403", False), ("", False)])
async def test_the_front_proxys_certificate_is_shown_to_the_api_server_itself(code: str, good: bool) -> None:  # noqa: FBT001
    host = KnownFacts({})
    assert await FrontProxyTaken(SERVER).check(host) is not None  # type: ignore[arg-type]
    (asked,) = host.asked
    assert isinstance(asked, Says)
    assert {f"{PKI}/front-proxy-client.crt", f"{PKI}/front-proxy-client.key"} <= set(asked.command)
    assert asked.command[-1] == "https://10.9.0.1:6443/apis"
    assert (await FrontProxyTaken(SERVER).check(KnownFacts({asked: answered(code)})) is None) is good  # type: ignore[arg-type]


def service(group: str, *, local: bool = False, available: str = "True") -> dict[str, Any]:
    spec: dict[str, Any] = {"group": group, "version": "v1", **({} if local else {"service": {"name": "x"}})}
    status = {"conditions": [{"type": "Available", "status": available}]}
    return {"kind": "APIService", "metadata": {"name": f"v1.{group}"}, "spec": spec, "status": status}


async def test_aggregated_apis_are_asked_by_the_api_server_of_each_control_plane() -> None:
    api = Objects(service("metrics.k8s.io"), service("custom.site"), service("apps", local=True, available="False"))
    paths = paths_of(await list_extensions(api))  # type: ignore[arg-type]
    assert paths == ("/apis/custom.site/v1", "/apis/metrics.k8s.io/v1")
    assert await codes_of_kube(ExtensionsAvailable(), api) == ""
    api.objects.append(service("lost.site", available="False"))
    assert await codes_of_kube(ExtensionsAvailable(), api) == "SHW-859"
    step = ExtensionsAnswer(paths, SERVER)
    facts: dict[Fact[Any], Any] = {SERVER.get("--raw", path): answered("{}") for path in paths}
    assert await step.check(KnownFacts(facts)) is None  # type: ignore[arg-type]
    facts[SERVER.get("--raw", paths[1])] = Output(1, "", "error: Unauthorized")
    seen = await step.check(KnownFacts(facts))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == "/apis/metrics.k8s.io/v1: error: Unauthorized"
    assert await ExtensionsAnswer((), SERVER).check(KnownFacts({})) is None  # type: ignore[arg-type]
    assert SERVER.get("x").command[:5] == ("kubectl", "--kubeconfig", f"{ETC}/admin.conf", "--server", SERVER.url)


async def codes_of_kube(check: Any, api: Objects) -> str:
    (result,) = await look_at_all([check], api)  # type: ignore[type-var]
    return result.error.code if result.error else ""


@pytest.mark.parametrize("of", [CLUSTER_CA, FRONT_PROXY], ids=lambda of: of.word)
async def test_the_one_that_goes_is_taken_out_of_what_aggregated_servers_read_and_nobody_elses(
    pair: Pair, made: Path, of: Which
) -> None:
    theirs = (made / "by-old.crt").read_text()  # somebody's: any certificate will do
    meta = {"name": PUBLISHED, "namespace": "kube-system", "resourceVersion": "7"}
    found = {"kind": "ConfigMap", "metadata": meta, "data": {of.told: pair.old + theirs, "other": "x"}}
    api = Objects(found)
    assert await ExtensionsTold(of, (pair.old,)).check(api) is None  # type: ignore[arg-type]
    assert await ExtensionsTold(of, pair.both).check(api) is not None  # type: ignore[arg-type]
    found["data"][of.told] += pair.new  # as an API server adds its own
    assert await ExtensionsTold(of, pair.both).check(api) is None  # type: ignore[arg-type]
    step = ExtensionsTold(of, (pair.new,), (pair.old,))
    seen = await step.check(api)  # type: ignore[arg-type]
    assert seen is not None
    assert seen.want.endswith(f", not {said([who(pair.old)])}")
    await step.apply(api)  # type: ignore[arg-type]
    assert found["data"] == {of.told: "".join(certificates_in(theirs)) + pair.new, "other": "x"}
    assert api.patched[0][2]["metadata"] == {"resourceVersion": "7"}
    assert await step.check(api) is None  # type: ignore[arg-type]
    found["data"][of.told] = ""
    await step.apply(api)  # type: ignore[arg-type]
    assert found["data"][of.told] == pair.new
    assert await step.check(api) is None  # type: ignore[arg-type]
    assert step.impact is Impact.SERVICE  # whom aggregated servers believe is no file of ours
    assert await step.check(Objects()) is not None  # type: ignore[arg-type]
    await step.apply(Objects())  # type: ignore[arg-type] - API servers make it
    assert pair.old not in repr(step)


class Plane(Written):
    """A control plane that trusts a CA, and has the public halves of earlier rotations."""

    def __init__(self, of: Which, trusted: str, kept: str) -> None:
        super().__init__({FileText(of.path): trusted, kept_of(of): answered(kept)})


@pytest.mark.parametrize("of", [CLUSTER_CA, FRONT_PROXY], ids=lambda of: of.word)
async def test_only_what_lies_in_a_folder_of_an_earlier_rotation_is_provably_left_behind(
    pair: Pair, made: Path, of: Which
) -> None:
    theirs = (made / "by-old.crt").read_text()  # one that a site added on purpose
    found = {"kind": "ConfigMap", "metadata": {"name": PUBLISHED, "namespace": "kube-system", "resourceVersion": "7"}}
    api = Objects({**found, "data": {of.told: pair.new + pair.old + theirs}})
    rotated, joined = Plane(of, pair.new, pair.old + pair.new + "rubbish"), Plane(of, pair.new, "")
    planes = (rotated, joined)
    assert await left_behind(api, planes, of) == (pair.old,)  # type: ignore[arg-type]
    seen = await NoneLeftBehind(planes).check(api)  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == f"kube-system/{PUBLISHED}: {of.told} holds {said([who(pair.old)])}"
    assert f"`{of.command} --plan`" in seen.want
    assert await left_behind(api, (rotated, Plane(of, pair.old, "")), of) == ()  # type: ignore[arg-type] - is in use
    assert await left_behind(api, (joined,), of) == ()  # type: ignore[arg-type] - nobody can prove whose it is
    two = Objects({**found, "data": {of.told: pair.old + pair.new}})
    assert await left_behind(two, planes, of) == (pair.old,)  # type: ignore[arg-type]
    alone = Objects({**found, "data": {of.told: pair.old}})
    assert await NoneLeftBehind(planes).check(alone) is None  # type: ignore[arg-type]
    assert await NoneLeftBehind(planes).check(Objects()) is None  # type: ignore[arg-type]
    assert await left_behind(api, planes, ETCD_CA) == ()  # type: ignore[arg-type] - nobody is told of it
    broken = Objects({**found, "data": {of.told: pair.new + BROKEN}})
    assert await left_behind(broken, (Plane(of, pair.new, BROKEN),), of) == ()  # type: ignore[arg-type]


BROKEN = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"


def test_of_folders_of_earlier_rotations_only_certificates_are_read(tmp_path: Path) -> None:
    for time in ("20260101T000000Z", "20260201T000000Z"):
        folder = tmp_path / f"before-renewal-ca-{time}"
        folder.mkdir()
        for name in FILES:
            (folder / name).write_text(f"{name} of {time}\n")
    words = [
        str(tmp_path / "before-renewal-ca-") if word == CLUSTER_CA.kept else word
        for word in kept_of(CLUSTER_CA).command
    ]
    assert "key" not in run(*words)
    assert run(*words).count("old.crt") == 2
    assert run(*words[:-1], str(tmp_path / "none")) == ""


async def test_pods_that_read_kubeadms_files_are_their_owners_to_restart() -> None:
    mirror = pod("etcd-cp1", "kube-system", "", {"hostPath": {"path": f"{PKI}/etcd"}})
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    api = Objects(
        mirror,
        pod("watcher", "site", "", {"hostPath": {"path": f"{PKI}/etcd/"}}),
        pod("all", "site", "", {"hostPath": {"path": PKI}}),
        pod("one", "site", "", {"hostPath": {"path": ETCD_CA.path}}),
        pod("root", "site", "", {"hostPath": {"path": "/"}}),  # of one who sees all nobody knows what it reads
        pod("other", "site", "", {"hostPath": {"path": f"{PKI}/etcd-other"}}),
        pod("none", "site", "", {"emptyDir": {}}),
    )
    assert await readers_of_files(api, ETCD_CA.path) == ["site/all", "site/one", "site/watcher"]  # type: ignore[arg-type]
    assert await readers_of_files(api, FRONT_PROXY.path) == ["site/all"]  # type: ignore[arg-type]
