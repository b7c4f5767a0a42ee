"""A CA takes another's place: real openssl on files of the tests' own, and steps by what is known of a host."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from shipway.converge import converge, look_at_all
from shipway.errors import Blocked, Refused
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.facts.static_pods import StaticPodFlags
from shipway.host.session import Command
from shipway.kubeadm.certificates import KUBELET_CLIENT, KUBELET_PKI, KUBELET_SERVER
from shipway.kubeadm.writes import MANIFESTS, PKI
from shipway.ownership.evidence import (
    ADMIN,
    AUTHORITY,
    BOOTSTRAP,
    CERTIFICATE,
    KUBELET_CONF,
    certificates_in,
    decode_pem,
)
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.authority.leafs import (
    NEWEST,
    KubeletClientSigned,
    KubeletServingSigned,
    LeafsSigned,
    SignedBy,
)
from shipway.steps.authority.objects import (
    PLUGINS,
    RESTARTED,
    ClusterInfoTrusts,
    Holder,
    NoTimeKept,
    PartsReadAnew,
    PodsAreTold,
    PodsToldSince,
    bundles_of_others,
    holders_of_old,
)
from shipway.steps.authority.pair import (
    MAKE,
    PLANNED,
    Pair,
    PairKept,
    PairThere,
    SignerIs,
    paired,
    said,
    trusted_by,
    who,
)
from shipway.steps.authority.possible import KeyThere, NoRotation, NotBesideGpuPods
from shipway.steps.authority.signing import CERT_FLAG, ManagerSigns, ReadByUs
from shipway.steps.authority.trust import (
    TRUSTED,
    Accepts,
    AuthorityTrusted,
    ClientsAccepted,
    KubeconfigTrusts,
    Serves,
)
from shipway.steps.authority.which import CLUSTER_CA
from shipway.steps.endpoint.kubeconfigs import MARK
from shipway.steps.kubernetes.endpoint import proof
from shipway.steps.kubernetes.health import KUBELET_CONFIG
from tests.kubernetes.test_certificates import CutOff, Tokens
from tests.kubernetes.test_move_endpoint import Shell
from tests.places.facts import KnownFacts
from tests.places.facts import said as answer

FOLDER, KEY, NAME = CLUSTER_CA.folder, CLUSTER_CA.key, CLUSTER_CA.inside
PART, SIGNED, FILES = CLUSTER_CA.part, CLUSTER_CA.leafs, CLUSTER_CA.files

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def ask(fact: Fact[Any]) -> Any:
    ran = subprocess.run(fact.words(), check=False, capture_output=True, text=True)
    return fact.parse(Output(ran.returncode, ran.stdout, ran.stderr))


def sign(folder: Path, name: str, *by: str) -> Path:
    """Make a CA, or with the CA's name a certificate of it; return the certificate's path, the key's beside it."""
    path, key = folder / f"{name}.crt", folder / f"{name}.key"
    ask_for = ("openssl", "req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", f"/CN={name}", "-keyout", str(key))
    if not by:
        run(*ask_for, "-x509", "-days", "9", "-out", str(path))
        return path
    request = folder / f"{name}.csr"
    run(*ask_for, "-out", str(request))
    own = (str(folder / f"{by[0]}.crt"), "-CAkey", str(folder / f"{by[0]}.key"), "-set_serial", "7")
    run("openssl", "x509", "-req", "-in", str(request), "-CA", *own, "-days", "9", "-out", str(path))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of kubeadm with its CA, and the folder that our script makes in it; a certificate of each CA."""
    pki = tmp_path_factory.mktemp("pki")
    sign(pki, "kubernetes")
    for half in ("crt", "key"):
        (pki / f"kubernetes.{half}").rename(pki / f"ca.{half}")
    run(
        "bash",
        "-c",
        MAKE,
        "bash",
        str(pki / NAME),
        str(pki / "ca"),
        "kubernetes-ca-20261129T120000Z",
        "3650",
        "kubernetes",
    )
    sign(pki, "by-old", f"{NAME}/old")
    sign(pki, "by-new", f"{NAME}/new")
    return pki


@pytest.fixture(scope="module")
def pair(made: Path) -> Pair:
    return Pair((made / NAME / "old.crt").read_text(), (made / NAME / "new.crt").read_text())


def both(pair: Pair, *, first: str = "old") -> str:
    return pair.old + pair.new if first == "old" else pair.new + pair.old


# --- the pair


def test_the_new_ca_lies_beside_the_old_one_as_strong_and_roots_alone(made: Path, pair: Pair) -> None:
    folder = made / NAME
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "old.key").read_bytes() == (made / "ca.key").read_bytes()
    shown = run("openssl", "x509", "-noout", "-text", "-in", str(folder / "new.crt"))
    assert all(text in shown for text in ("CA:TRUE", "Certificate Sign", "2048 bit", "kubernetes-ca-2026"))
    assert shown.count("Basic Constraints") == 1  # a second one is refused by Go
    assert who(pair.old) != who(pair.new)
    assert ask(paired(str(folder / "new.crt"), str(folder / "new.key"))).ok
    assert not ask(paired(str(folder / "new.crt"), str(folder / "old.key"))).ok


def test_a_key_on_a_curve_gets_one_on_the_same_and_what_is_no_key_makes_nothing(tmp_path: Path) -> None:
    curve = ("ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-subj", "/CN=kubernetes", "-days", "9")
    paths = ("-keyout", str(tmp_path / "ca.key"), "-out", str(tmp_path / "ca.crt"))
    run("openssl", "req", "-x509", "-new", "-nodes", "-newkey", *curve, *paths)
    words = (
        "bash",
        "-c",
        MAKE,
        "bash",
        str(tmp_path / NAME),
        str(tmp_path / "ca"),
        "kubernetes-ca-x",
        "9",
        "kubernetes",
    )
    run(*words)
    assert "P-384" in run("openssl", "x509", "-noout", "-text", "-in", str(tmp_path / NAME / "new.crt"))
    shutil.rmtree(tmp_path / NAME)
    (tmp_path / "ca.key").write_text("no key")
    assert subprocess.run(words, check=False, capture_output=True).returncode != 0
    assert not (tmp_path / NAME).exists()


def test_which_ca_is_wanted_and_how_a_plan_calls_the_one_that_is_made(pair: Pair) -> None:
    back = Pair(pair.old, pair.new, back=True)
    assert (pair.wanted, pair.leaving, pair.role(), pair.role(leaving=True)) == (pair.new, pair.old, "new", "old")
    assert (back.wanted, back.leaving, back.role(), back.role(leaving=True)) == (pair.old, pair.new, "old", "new")
    assert who(Pair(pair.old).wanted) == PLANNED
    assert pair.old not in repr(pair)
    assert trusted_by(both(pair)) == [who(pair.old), who(pair.new)]
    assert said([]) == "none"
    assert "".join(certificates_in(f"words\n{both(pair)}words")) == both(pair)


class Written(KnownFacts):
    """Keeps the mode of what is written."""

    def __init__(self, facts: Mapping[Fact[Any], Any], name: str = "te1") -> None:
        super().__init__(facts)
        self.name = name
        self.modes: dict[str, str] = {}

    async def write(self, path: str, content: bytes, **more: str) -> None:
        """Keep it."""
        self.modes[path] = more.get("mode", "644")
        await super().write(path, content, **more)

    async def succeed(self, name: str, words: Sequence[str], *, seconds: int) -> Output:
        """Keep what would run."""
        del seconds
        self.done.append(f"{name}: {' '.join(words)}")
        return Output(0, "", "")

    def forget(self) -> None:
        """Know what is known."""


def holding(name: str, digest: str = "d") -> Written:
    states = {FileState(f"{FOLDER}/{one}"): FileInfo(digest * 64, "600", "root:root", 1) for one in FILES}
    texts = {FileText(f"{FOLDER}/{one}"): f"text of {one}" for one in FILES}
    return Written({Listing(FOLDER): FILES, **states, **texts}, name)


async def test_keys_are_brought_to_a_control_plane_as_files_and_in_no_argument() -> None:
    bare, lead = Written({}, "cp2"), holding("cp1")
    step = PairThere(lead)  # type: ignore[arg-type]
    assert await step.check(bare) is not None  # type: ignore[arg-type]
    await step.apply(bare)  # type: ignore[arg-type]
    assert bare.written == {f"{PART}/{one}": f"text of {one}" for one in FILES}
    assert set(bare.modes.values()) == {"600"}
    assert bare.done[0] == f"install -d -m 700 -o root -g root -- {PART}"
    assert bare.done[-1] == f"mv -T -- {PART} {FOLDER}"
    assert not [line for line in bare.done if "text of" in line]
    assert await step.check(holding("cp2")) is None  # type: ignore[arg-type]
    with pytest.raises(Refused, match="never written over"):
        await step.check(holding("cp2", "e"))  # type: ignore[arg-type]
    lead.facts[FileText(f"{FOLDER}/new.key")] = ""
    with pytest.raises(Blocked, match="not whole"):
        await step.apply(Written({}, "cp2"))  # type: ignore[arg-type]


async def test_the_first_control_plane_makes_it_and_a_half_of_a_folder_is_no_pair() -> None:
    step = PairThere()
    assert await step.check(holding("cp1")) is None  # type: ignore[arg-type]
    half = Written({Listing(FOLDER): FILES[:3]})
    assert await step.check(half) is not None  # type: ignore[arg-type]
    await step.apply(half)  # type: ignore[arg-type]
    (line,) = half.done
    assert f"{FOLDER} {PKI}/ca kubernetes-ca-20" in line


async def test_ca_key_and_the_first_certificate_become_the_wanted_ones(tmp_path: Path, made: Path, pair: Pair) -> None:
    pki = tmp_path / "pki"
    shutil.copytree(made, pki)
    fits = {FileText(AUTHORITY): both(pair), paired(AUTHORITY, KEY): answer("")}
    step = SignerIs(pair)
    seen = await step.check(KnownFacts(fits))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == said([who(pair.old)])
    await step.apply(Shell(fits, {FOLDER: pki / NAME, f"{PKI}/ca": pki / "ca"}))  # type: ignore[arg-type]
    assert trusted_by((pki / "ca.crt").read_text()) == [who(pair.new), who(pair.old)]
    assert ask(paired(str(pki / "ca.crt"), str(pki / "ca.key"))).ok
    assert stat.S_IMODE((pki / "ca.key").stat().st_mode) == 0o600
    assert [path.name for path in pki.iterdir() if path.name.startswith(".")] == []
    turned = {**fits, FileText(AUTHORITY): both(pair, first="new")}
    assert await step.check(KnownFacts(turned)) is None  # type: ignore[arg-type]
    halves = {**turned, paired(AUTHORITY, KEY): answer("", 1)}
    assert await step.check(KnownFacts(halves)) is not None  # type: ignore[arg-type]


async def test_the_folder_is_put_aside_at_the_end_and_never_deleted() -> None:
    host = KnownFacts({Listing(PKI): ("ca.crt", NAME)})
    assert await PairKept().check(host) is not None  # type: ignore[arg-type]
    await PairKept().apply(host)  # type: ignore[arg-type]
    assert host.done[0].startswith(f"mv -T -- {FOLDER} /etc/kubernetes/before-renewal-ca-20")
    assert await PairKept().check(KnownFacts({Listing(PKI): ("ca.crt",)})) is None  # type: ignore[arg-type]


# --- trust


async def test_ca_crt_holds_both_in_whatever_order_and_its_first_stays_first(pair: Pair) -> None:
    step = AuthorityTrusted(pair.both)
    for first in ("old", "new"):
        assert await step.check(KnownFacts({FileText(AUTHORITY): both(pair, first=first)})) is None  # type: ignore[arg-type]
    for text in (pair.old, pair.new, both(pair) + pair.old):
        host = KnownFacts({FileText(AUTHORITY): text})
        assert await step.check(host) is not None  # type: ignore[arg-type]
        await step.apply(host)  # type: ignore[arg-type]
        assert trusted_by(host.written[AUTHORITY])[0] == trusted_by(text)[0]
        assert set(trusted_by(host.written[AUTHORITY])) == {who(one) for one in pair.both}
    there, old = KnownFacts({FileText(AUTHORITY): both(pair)}), KnownFacts({FileText(AUTHORITY): pair.old})
    assert await AuthorityTrusted((pair.new,), exactly=False).check(there) is None  # type: ignore[arg-type]
    assert await AuthorityTrusted((pair.new,)).check(there) is not None  # type: ignore[arg-type]
    assert await AuthorityTrusted((pair.old, "")).check(old) is not None  # type: ignore[arg-type] - as a plan has it
    with pytest.raises(Blocked):
        await step.check(KnownFacts({}))  # type: ignore[arg-type]
    assert pair.old not in repr(step)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_only_a_kubeconfigs_authorities_change_and_a_kubelets_change_is_marked(
    tmp_path: Path, pair: Pair
) -> None:
    conf, mark = tmp_path / "kubelet.conf", tmp_path / "mark"
    text = "clusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://x:6443\nusers: [secret]\n"
    conf.write_text(text.format(encoded(pair.old)))
    conf.chmod(0o600)
    line = f"{KUBELET_CONF}:    certificate-authority-data: {encoded(pair.old)}\n"
    step = KubeconfigTrusts(KUBELET_CONF, pair.both)
    host = Shell({TRUSTED: answer(line)}, {KUBELET_CONF: conf, MARK: mark})
    assert await step.check(host) is not None  # type: ignore[arg-type]
    await step.apply(host)  # type: ignore[arg-type]
    assert conf.read_text() == text.format(encoded(both(pair)))
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    assert " and " in mark.read_text()
    told = KnownFacts({TRUSTED: answer(line.replace(encoded(pair.old), encoded(both(pair, first="new"))))})
    assert await step.check(told) is None  # type: ignore[arg-type]
    assert await KubeconfigTrusts(ADMIN, pair.both).check(told) is None  # type: ignore[arg-type] - not there


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        (f"{ADMIN}:    certificate-authority: {AUTHORITY}\n", False),
        (f"{ADMIN}:    certificate-authority: /etc/site/ca.pem\n", True),
        (f"{ADMIN}:    certificate-authority-data: QQ==\n{ADMIN}:    certificate-authority-data: Qg==\n", True),
    ],
)
async def test_a_kubeconfig_that_trusts_otherwise_is_a_persons_to_edit(lines: str, refused: bool, pair: Pair) -> None:  # noqa: FBT001
    (result,) = await look_at_all([KubeconfigTrusts(ADMIN, pair.both)], KnownFacts({TRUSTED: answer(lines)}))  # type: ignore[list-item]
    assert (result.error.code if result.error else "") == ("SHW-852" if refused else "")


@contextlib.contextmanager
def serving(
    folder: Path, name: str, *accepted: Path, asks: str = "-verify", more: tuple[str, ...] = ()
) -> Iterator[int]:
    """Yield the port of a server with a certificate of a name, which asks for those of clients of some CAs.

    `asks` by `-Verify` it ends a handshake with one who shows none, as etcd does.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = folder / f"accepted-{port}"
    known.write_text("".join(path.read_text() for path in accepted))
    own = ("-cert", str(folder / f"{name}.crt"), "-key", str(folder / f"{name}.key"))
    ask_for = ("-CAfile", str(known), asks, "2") if accepted else ()
    words = ("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", *more, *own, *ask_for)
    server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()


async def test_whom_a_port_accepts_is_asked_of_the_port(made: Path, pair: Pair) -> None:
    old, new = made / NAME / "old.crt", made / NAME / "new.crt"
    for accepted, answers in (
        ((old, new), ("accepted", "accepted")),
        ((new,), ("not accepted", "accepted")),
        ((), ("", "")),
    ):
        with serving(made, "by-new", *accepted) as port:
            assert tuple(ask(Accepts(one, "127.0.0.1", port)) for one in pair.both) == answers
    place = ("10.9.0.1", 6443)
    facts: dict[Fact[Any], Any] = {Accepts(pair.new, *place): "accepted", Accepts(pair.old, *place): "not accepted"}
    assert await ClientsAccepted((pair.new,), (pair.old,), *place).check(KnownFacts(facts)) is None  # type: ignore[arg-type]
    assert await ClientsAccepted(pair.both, (), *place).check(KnownFacts(facts)) is not None  # type: ignore[arg-type]
    silent = {**facts, Accepts(pair.old, *place): ""}
    assert await ClientsAccepted((pair.new,), (pair.old,), *place).check(KnownFacts(silent)) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(("status", "good"), [(0, True), (60, False), (7, False)])
async def test_what_is_served_is_proved_by_one_who_trusts_the_wanted_ca_alone(
    status: int,
    good: bool,  # noqa: FBT001
    pair: Pair,
) -> None:
    host = KnownFacts({proof("https://10.9.0.1:6443/livez", pair.new): Output(status, "", "curl: why")})
    assert (await Serves(pair.new, "10.9.0.1", 6443).check(host) is None) is good  # type: ignore[arg-type]


# --- who signs


MANIFEST = """apiVersion: v1
kind: Pod
spec:
  containers:
  - command:
    - {part}
{flags}
    volumeMounts:
    - {{mountPath: /etc/kubernetes/pki, name: k8s-certs}}
  volumes:
  - {{hostPath: {{path: /etc/kubernetes/pki}}, name: k8s-certs}}
"""


def manifest(part: str, **flags: str) -> dict[Fact[Any], Any]:
    lines = "\n".join(f"    - --{name.replace('_', '-')}={value}" for name, value in flags.items())
    named = {name.replace("_", "-"): value for name, value in flags.items()}
    return {
        FileText(f"{MANIFESTS}/{part}.yaml"): MANIFEST.format(part=part, flags=lines),
        StaticPodFlags(part): named,
    }


def manager(certificate: str = AUTHORITY, key: str = KEY, **more: str) -> dict[Fact[Any], Any]:
    files = {"client_ca_file": AUTHORITY, "root_ca_file": AUTHORITY}
    signs = {"cluster_signing_cert_file": certificate, "cluster_signing_key_file": key}
    return manifest("kube-controller-manager", **files, **signs, **more)


API = manifest("kube-apiserver", client_ca_file=AUTHORITY)
KUBELET: dict[Fact[Any], Any] = {
    FileText(KUBELET_CONFIG): f"kind: KubeletConfiguration\nauthentication: {{x509: {{clientCAFile: {AUTHORITY}}}}}\n"
}


@pytest.mark.parametrize(
    ("facts", "said_of"),
    [
        ({}, ""),
        (manager(f"{FOLDER}/old.crt", f"{FOLDER}/old.key"), ""),
        (manager("/etc/site/ca.crt"), "cluster-signing-cert-file: /etc/site/ca.crt"),
        (manager(cluster_signing_kubelet_client_cert_file="/x"), "kubelet-client-cert-file: /x"),
        (manifest("kube-apiserver", client_ca_file="/etc/site/clients.crt"), "--client-ca-file: /etc/site/clients.crt"),
        (
            manifest("kube-apiserver", client_ca_file=AUTHORITY, kubelet_certificate_authority="/x"),
            "--kubelet-certificate-authority: /x",
        ),
        ({FileText(KUBELET_CONFIG): "kind: KubeletConfiguration\n"}, "clientCAFile: none"),
    ],
)
async def test_who_reads_the_ca_from_elsewhere_is_named(facts: dict[Fact[Any], Any], said_of: str) -> None:
    host = KnownFacts({**API, **manager(), **KUBELET, **facts})
    (result,) = await look_at_all([ReadByUs(control=True)], host)  # type: ignore[list-item]
    assert (result.error.code if result.error else "") == ("SHW-852" if said_of else "")
    assert said_of in (result.error.message if result.error else "")
    assert await ReadByUs(control=False).check(KnownFacts(KUBELET)) is None  # type: ignore[arg-type]


async def test_the_controller_manager_signs_by_the_pair_that_is_meant_at_each_stage(pair: Pair) -> None:
    where = ("cp1", "10.9.0.1", 6443)
    fresh = {FileText(AUTHORITY): pair.old, **manager()}
    keeps = ManagerSigns(pair, *where, keeps=True)
    seen = await keeps.check(KnownFacts(fresh))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.want == f"--{CERT_FLAG}={FOLDER}/old.crt"
    by_old = {FileText(AUTHORITY): both(pair), **manager(f"{FOLDER}/old.crt", f"{FOLDER}/old.key")}
    assert await keeps.check(KnownFacts(by_old)) is None  # type: ignore[arg-type]
    signed = {FileText(AUTHORITY): both(pair, first="new"), **manager(f"{FOLDER}/new.crt", f"{FOLDER}/new.key")}
    assert await keeps.check(KnownFacts(signed)) is None  # type: ignore[arg-type] - a run that goes on takes nothing back
    assert await ManagerSigns(pair, *where).check(KnownFacts(by_old)) is not None  # type: ignore[arg-type]
    assert await ManagerSigns(pair, *where).check(KnownFacts(signed)) is None  # type: ignore[arg-type]
    over = ManagerSigns(pair, *where, over=True)
    assert await over.check(KnownFacts(signed)) is not None  # type: ignore[arg-type]
    assert await over.check(KnownFacts(manager())) is None  # type: ignore[arg-type]
    stale = {**manager(), StaticPodFlags("kube-controller-manager"): {CERT_FLAG: f"{FOLDER}/new.crt"}}
    assert await over.check(KnownFacts(stale)) is not None  # type: ignore[arg-type]
    assert await over.check(KnownFacts({**manager(), StaticPodFlags("kube-controller-manager"): None})) is not None  # type: ignore[arg-type]


# --- what is signed


def test_who_has_signed_a_file_is_told_without_its_key(made: Path, pair: Pair, tmp_path: Path) -> None:
    client, conf = tmp_path / "client.pem", tmp_path / "admin.conf"
    client.write_text((made / "by-new.crt").read_text() + (made / "by-new.key").read_text())
    conf.write_text(f"    client-certificate-data: {encoded((made / 'by-old.crt').read_text())}\n    key: x\n")
    assert [ask(SignedBy(one, str(client))) for one in (*pair.both, "")] == [False, True, False]
    assert [ask(SignedBy(one, str(conf))) for one in pair.both] == [True, False]
    assert ask(SignedBy(pair.new, str(tmp_path / "none"))) is None
    ran = subprocess.run(SignedBy(pair.new, str(client)).words(), check=False, capture_output=True, text=True)
    assert ran.stdout == "signed\n"
    assert pair.new not in repr(SignedBy(pair.new, "x"))


async def test_only_what_another_ca_has_signed_is_renewed(pair: Pair) -> None:
    facts: dict[Fact[Any], Any] = {SignedBy(pair.new, leaf.path): True for leaf in SIGNED}
    facts[SignedBy(pair.new, "/etc/kubernetes/super-admin.conf")] = None  # is not on every control plane
    assert await LeafsSigned(pair).check(Written(facts)) is None  # type: ignore[arg-type]
    facts[SignedBy(pair.new, f"{PKI}/apiserver.crt")] = False
    facts[SignedBy(pair.new, ADMIN)] = None
    host = Written(facts)
    seen = await LeafsSigned(pair).check(host)  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == "apiserver, admin.conf"
    await LeafsSigned(pair).apply(host)  # type: ignore[arg-type]
    assert host.done[0].endswith("sh kubeadm alpha certs renew apiserver admin.conf")  # no kubeadm answers there
    host.facts[Says(("kubeadm", "certs", "renew", "--help"))] = answer("")
    await LeafsSigned(pair).apply(host)  # type: ignore[arg-type]
    assert host.done[1].endswith("sh kubeadm certs renew apiserver admin.conf")
    assert {leaf.authority for leaf in SIGNED} == {"ca"}


async def test_a_kubelet_is_as_wanted_by_the_wanted_cas_signature_alone(pair: Pair) -> None:
    step = KubeletClientSigned(pair, "w1", KnownFacts({}))  # type: ignore[arg-type]
    for signed, good in ((True, True), (False, False), (None, False)):  # none: it asks for one
        host = KnownFacts({SignedBy(pair.new, KUBELET_CLIENT): signed})
        assert (await step.check(host) is None) is good  # type: ignore[arg-type]
    for signed, good in ((True, True), (False, False), (None, True)):  # none: it signs its own
        host = KnownFacts({SignedBy(pair.new, KUBELET_SERVER): signed})
        assert (await KubeletServingSigned(pair).check(host) is None) is good  # type: ignore[arg-type]


class Asking(CutOff):
    """A node whose kubelet has the old CA's certificate, or (`killed`) only the dated file that the link led to."""

    name = "w1"

    def __init__(self, pair: Pair, *, killed: bool = False) -> None:
        super().__init__(both(pair))
        self.signed = SignedBy(pair.new, KUBELET_CLIENT)
        self.facts[self.signed] = None if killed else False
        if killed:
            self.facts[NEWEST] = self.facts.pop(CERTIFICATE)

    async def do(self, *commands: Command) -> list[Output]:
        """Let the kubelet ask, when it starts with credentials and without its old certificate."""
        lines = [*self.done, *(" ".join(command.words) for command in commands)]
        if "systemctl restart kubelet" in lines and f"rm -f -- {KUBELET_CLIENT}" in lines and BOOTSTRAP in self.written:
            self.facts[self.signed] = True
        return await super().do(*commands)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_kubelet_asks_as_it_did_when_it_joined_by_a_token_that_is_gone_afterwards(
    pair: Pair,
    killed: bool,  # noqa: FBT001
) -> None:
    host, control = Asking(pair, killed=killed), Tokens({FileText(AUTHORITY): both(pair)})
    step = KubeletClientSigned(pair, "w1", control)  # type: ignore[arg-type]
    (result,) = await converge([step], host, Impact.SERVICE)  # type: ignore[list-item]
    assert (result.outcome, result.error, result.restarts) == ("changed", None, "kubelet")
    cluster = yaml.safe_load(host.written[BOOTSTRAP])["clusters"][0]["cluster"]  # of which it writes its kubelet.conf
    assert trusted_by(decode_pem(cluster["certificate-authority-data"])) == [who(pair.old), who(pair.new)]
    assert (host.modes[BOOTSTRAP], host.done[-1]) == ("600", f"rm -f {BOOTSTRAP}")
    assert control.done[-1].endswith(" abcdef")  # the public half alone
    assert "0123456789abcdef" not in " ".join([*host.done, *control.done])


async def test_a_kubelet_that_is_not_provably_the_node_is_given_no_token(pair: Pair) -> None:
    for node, trusted in (("w2", both(pair)), ("w1", "")):
        host, control = Asking(pair), Tokens({FileText(AUTHORITY): trusted})
        step = KubeletClientSigned(pair, node, control)  # type: ignore[arg-type]
        with pytest.raises(Refused) as raised:
            await step.apply(host)  # type: ignore[arg-type]
        assert raised.value.code == "SHW-751"
        assert (host.done, host.written, control.done) == ([], {}, [])


def test_the_newest_certificate_is_read_without_its_key(tmp_path: Path) -> None:
    text = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\nkey\n"
    for day in ("2026-11-28", "2026-11-29"):
        (tmp_path / f"kubelet-client-{day}-10-00-00.pem").write_text(text.format(day))
    words = [str(tmp_path) if word == KUBELET_PKI else word for word in NEWEST.command]
    assert run(*words).splitlines()[1:-1] == ["2026-11-29"]


# --- what forbids it, and what it forbids


async def codes(check: Any, facts: Mapping[Fact[Any], Any]) -> str:
    (result,) = await look_at_all([check], KnownFacts(facts))  # type: ignore[list-item]
    return result.error.code if result.error else ""


async def test_without_the_cas_own_key_nothing_begins() -> None:
    fits, not_its = {paired(AUTHORITY, KEY): answer("")}, {paired(AUTHORITY, KEY): answer("", 1)}
    assert await codes(KeyThere(), {Listing(PKI): ("ca.crt", "ca.key"), **fits}) == ""
    assert await codes(KeyThere(), {Listing(PKI): ("ca.crt",), **not_its}) == "SHW-851"
    assert await codes(KeyThere(), {Listing(PKI): ("ca.crt", "ca.key"), **not_its}) == "SHW-851"
    assert await codes(KeyThere(), {Listing(PKI): ("ca.crt", "ca.key", NAME), **not_its}) == ""  # a kill between halves


async def test_kubeadm_is_kept_from_a_control_plane_of_two_cas(pair: Pair) -> None:
    assert await codes(NoRotation(), {FileText(AUTHORITY): pair.old, Listing(PKI): ("ca.crt",)}) == ""
    assert await codes(NoRotation(), {FileText(AUTHORITY): both(pair), Listing(PKI): ("ca.crt",)}) == "SHW-856"
    assert await codes(NoRotation(), {FileText(AUTHORITY): pair.old, Listing(PKI): ("ca.crt", NAME)}) == "SHW-856"


@pytest.mark.parametrize(
    ("busy", "allowed", "code"), [({}, False, ""), ({"w1": "x"}, True, ""), ({"w1": "x"}, False, "SHW-854")]
)
async def test_kubelets_beside_gpu_pods_wait_for_a_word(busy: dict[str, str], allowed: bool, code: str) -> None:  # noqa: FBT001
    assert await codes(NotBesideGpuPods(busy, allowed), {}) == code


# --- in the cluster


class Objects:
    """An API that has what it was given, and keeps what is changed."""

    name = "cluster"

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = list(objects)
        self.patched: list[tuple[str, str, Any]] = []
        self.now = NOW

    async def get(self, _: str, kind: str, name: str, namespace: str = "") -> Any:
        """Return one."""
        found = [one for one in await self.list_("", kind) if one["metadata"]["name"] == name]
        return next((one for one in found if one["metadata"].get("namespace", "") == namespace), None)

    async def list_(self, _: str, kind: str, *__: str, fields: str = "") -> Any:
        """Return those of a kind."""
        _, found, name = fields.partition("metadata.name=")
        return [one for one in self.objects if one["kind"] == kind and (not found or one["metadata"]["name"] == name)]

    async def patch(self, _: str, kind: str, name: str, change: Any, namespace: str = "") -> None:
        """Keep a change; a workload that is made anew has new pods."""
        self.patched.append((kind, name, change))
        if kind == "ConfigMap":
            (await self.get("", kind, name, namespace))["data"] |= change["data"]
        for one in self.objects:
            if one["kind"] == "Pod" and one["metadata"]["name"].startswith(name):
                one["metadata"]["creationTimestamp"] = LATER

    async def apply(self, obj: dict[str, Any]) -> None:
        """Make one now."""
        self.objects.append({**obj, "metadata": {**obj["metadata"], "creationTimestamp": self.now}})

    async def delete(self, _: str, kind: str, name: str, namespace: str) -> None:
        """Delete one, if it is there."""
        found = await self.get("", kind, name, namespace)
        self.objects = [one for one in self.objects if one is not found]

    def forget(self) -> None:
        """Know what is known."""

    def seen_by(self, _: object) -> Objects:
        """Return itself."""
        return self


THEN, NOW, LATER = "2026-11-29T10:00:00Z", "2026-11-29T11:00:00Z", "2026-11-29T12:00:00Z"
TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}


def root(namespace: str, *trusted: str) -> dict[str, Any]:
    meta = {"name": "kube-root-ca.crt", "namespace": namespace, "creationTimestamp": THEN}
    return {"kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": "".join(trusted)}}


def space(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": name, **more}}


def pod(name: str, namespace: str, when: str, *volumes: dict[str, Any], owner: str = "", phase: str = "") -> Any:
    kind, _, by = owner.partition("/")
    meta: dict[str, Any] = {"name": name, "namespace": namespace, "creationTimestamp": when}
    if owner:
        meta["ownerReferences"] = [{"apiVersion": "apps/v1", "kind": kind, "name": by, "controller": True}]
    return {
        "kind": "Pod",
        "metadata": meta,
        "spec": {"volumes": list(volumes)},
        "status": {"phase": phase or "Running"},
    }


async def test_pods_are_told_where_every_namespace_and_every_token_holds_it(pair: Pair) -> None:
    token = {
        "kind": "Secret",
        "metadata": {"name": "default-token-x", "namespace": "a"},
        "data": {"ca.crt": encoded(both(pair)), "token": "c2VjcmV0"},
    }
    api = Objects(space("a"), space("b"), root("a", *pair.both), root("b", pair.new, pair.old), token)
    api.objects.append(space("ending", deletionTimestamp=NOW))
    step = PodsAreTold(pair.both)
    assert await step.check(api) is None  # type: ignore[arg-type]
    assert await PodsAreTold((pair.new,), exactly=False).check(api) is None  # type: ignore[arg-type]
    assert await PodsAreTold((pair.new,)).check(api) is not None  # type: ignore[arg-type]
    token["data"] = {"ca.crt": encoded(pair.old), "token": "c2VjcmV0"}
    seen = await step.check(api)  # type: ignore[arg-type]
    assert seen is not None
    assert "a/default-token-x" in seen.have
    assert "c2VjcmV0" not in str(seen)
    api.objects.remove(token)
    api.objects = [one for one in api.objects if one["metadata"].get("namespace") != "b"]
    assert await step.check(api) is not None  # type: ignore[arg-type] - a namespace that nobody told


async def test_joining_hosts_are_told_and_nothing_else_of_cluster_info_changes(pair: Pair) -> None:
    text = "clusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://api:6443\n"
    info = {"name": "cluster-info", "namespace": "kube-public", "resourceVersion": "7"}
    made: dict[str, Any] = {
        "kind": "ConfigMap",
        "metadata": info,
        "data": {"kubeconfig": text.format(encoded(pair.old))},
    }
    api, step = Objects(made), ClusterInfoTrusts(pair.both)
    assert await step.check(api) is not None  # type: ignore[arg-type]
    await step.apply(api)  # type: ignore[arg-type]
    assert made["data"]["kubeconfig"] == text.format(encoded(both(pair)))
    assert api.patched[0][2]["metadata"] == {"resourceVersion": "7"}
    assert await step.check(api) is None  # type: ignore[arg-type]
    assert await step.check(Objects()) is None  # type: ignore[arg-type] - somebody took it away
    made["data"]["kubeconfig"] = "nothing"
    with pytest.raises(Blocked):
        await step.check(api)  # type: ignore[arg-type]


SETS = {"kind": "DaemonSet", "metadata": {"name": "kube-proxy", "namespace": "kube-system"}}
REPLICAS = {
    "kind": "ReplicaSet",
    "metadata": {
        "name": "web-1",
        "namespace": "site",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "controller": True}],
    },
}


async def test_pods_that_read_the_old_ca_are_those_with_a_token_that_are_older_than_its_change(pair: Pair) -> None:
    ending = pod("ending", "site", THEN, TOKEN)
    ending["metadata"]["deletionTimestamp"] = LATER
    secret = {"kind": "Secret", "metadata": {"name": "t", "namespace": "site", "creationTimestamp": THEN}}
    api = Objects(
        secret,
        SETS,
        REPLICAS,
        {"kind": "Deployment", "metadata": {"name": "web", "namespace": "site"}},
        pod("kube-proxy-x", "kube-system", THEN, TOKEN, owner="DaemonSet/kube-proxy"),
        pod("kube-proxy-y", "kube-system", LATER, TOKEN, owner="DaemonSet/kube-proxy"),
        pod("plugin", "kube-system", THEN, TOKEN, {"hostPath": {"path": PLUGINS}}),
        pod("web-1-x", "site", THEN, {"secret": {"secretName": "t"}}, owner="ReplicaSet/web-1"),
        pod("same-second", "site", NOW, TOKEN),
        pod("without", "site", THEN, {"secret": {"secretName": "its-own"}}),
        pod("ended", "site", THEN, TOKEN, phase="Succeeded"),
        ending,
    )
    api.now = THEN
    earlier, told = PodsToldSince((pair.old,)), PodsToldSince(pair.both)
    await earlier.apply(api)  # type: ignore[arg-type] - of an earlier rotation
    assert await told.check(api) is not None  # type: ignore[arg-type]
    api.now, began = NOW, time.monotonic()
    await told.apply(api)  # type: ignore[arg-type]
    assert time.monotonic() - began > 1  # what is made afterwards is dated later
    assert (await told.check(api), await earlier.check(api) is None) == (None, False)  # type: ignore[arg-type]
    old = await holders_of_old(api)  # type: ignore[arg-type]
    assert old == [
        Holder("kube-system", "kube-proxy-x", "DaemonSet", "kube-proxy"),
        Holder("site", "web-1-x", "Deployment", "web"),
        Holder("site", "same-second"),
    ]
    assert [one.said for one in old] == ["kube-system/kube-proxy", "site/web", "site/same-second"]
    assert len(await holders_of_old(api, whenever=True)) == 4  # type: ignore[arg-type]
    step = PartsReadAnew(frozenset({"kube-system"}), 5)
    assert await step.check(api) is not None  # type: ignore[arg-type]
    await step.apply(api)  # type: ignore[arg-type]
    ((kind, name, change),) = api.patched
    assert (kind, name) == ("DaemonSet", "kube-proxy")
    assert list(change["spec"]["template"]["metadata"]["annotations"]) == [RESTARTED]
    assert await step.check(api) is None  # type: ignore[arg-type]
    assert await NoTimeKept().check(api) is not None  # type: ignore[arg-type]
    await NoTimeKept().apply(api)  # type: ignore[arg-type]
    assert await NoTimeKept().check(api) is None  # type: ignore[arg-type]


async def test_bundles_of_others_are_named_where_they_hold_the_old_ca(pair: Pair) -> None:
    def hook(name: str, pem: str) -> dict[str, Any]:
        return {
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{"clientConfig": {"caBundle": encoded(pem)}}],
        }

    api = Objects(
        hook("theirs", pair.old),
        hook("own-ca", pair.new),
        {"kind": "APIService", "metadata": {"name": "v1.x"}, "spec": {"caBundle": encoded(pair.old)}},
        {"kind": "APIService", "metadata": {"name": "v1."}, "spec": {}},
        {
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.x"},
            "spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": encoded(pair.old)}}}},
        },
    )
    found = await bundles_of_others(api, pair.old)  # type: ignore[arg-type]
    assert found == ["aggregated API v1.x", "conversion things.x", "webhook theirs"]
