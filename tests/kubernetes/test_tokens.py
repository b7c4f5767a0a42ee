"""The key that signs tokens: real openssl on files of the tests' own, what API servers answer, tokens that are kept."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from shipway.converge import look_at_all
from shipway.errors import DeadlineExceeded
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileText, Listing
from shipway.kube.access import ADMIN_CONF
from shipway.kubeadm.writes import PKI
from shipway.ownership.evidence import AUTHORITY
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.authority.objects import TOKEN_TYPE, TOLD, NoTimeKept, PodsToldSince, SigningChanges
from shipway.steps.authority.own_server import OwnServer
from shipway.steps.authority.pair import MAKE_KEY, PLANNED, Pair, PairThere, SignerIs, named, paired, trusted_by, who
from shipway.steps.authority.possible import KeyThere
from shipway.steps.authority.token_secrets import SPARE, OwnTokensSigned, find_waiting, kept_tokens, tokens_of_others
from shipway.steps.authority.tokens import (
    KeysPublished,
    TokenSigned,
    TokensSignedByUs,
    TokensTaken,
    kid_of,
    made,
    requested,
    signer_of,
)
from shipway.steps.authority.trust import AuthorityTrusted
from shipway.steps.authority.which import SERVICE_ACCOUNTS
from tests.kubernetes.test_authority import NOW, Objects, Written, ask, codes, manifest, pod, run
from tests.kubernetes.test_move_endpoint import Shell
from tests.places.facts import KnownFacts
from tests.places.facts import said as answered

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
SERVER, OF = OwnServer("10.9.0.1", 6443), SERVICE_ACCOUNTS
OWN = frozenset({"kube-system"})
ISSUER = "https://kubernetes.default.svc.cluster.local"
KINDS = {"RSA": ("RSA", "rsa_keygen_bits:2048")} | {
    f"P-{bits}": ("EC", f"ec_paramgen_curve:P-{bits}") for bits in (256, 384, 521)
}


def make(folder: Path, kind: str = "P-256") -> Pair:
    """Make kubeadm's pair of a kind, and the new one beside it as the script does; return both public halves."""
    algorithm, option = KINDS[kind]
    key = str(folder / "sa.key")
    run("openssl", "genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", key)
    run("openssl", "pkey", "-pubout", "-in", key, "-out", str(folder / "sa.pub"))
    run("bash", "-c", MAKE_KEY, "bash", str(folder / OF.inside), str(folder / "sa"))
    return Pair(*((folder / OF.inside / f"{role}.pub").read_text() for role in ("old", "new")), of=OF)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of kubeadm with a key on a curve, and the folder of both in it."""
    folder = tmp_path_factory.mktemp("pki")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def pair(pki: Path) -> Pair:
    """Both public halves."""
    return Pair(*((pki / OF.inside / f"{role}.pub").read_text() for role in ("old", "new")), of=OF)


# --- the pair


LONG = pytest.param("RSA", marks=pytest.mark.long)  # primes are searched for


@pytest.mark.parametrize("kind", [LONG, "P-384"])
def test_the_new_key_lies_beside_the_old_one_as_strong_and_roots_alone(tmp_path: Path, kind: str) -> None:
    pair, folder = make(tmp_path, kind), tmp_path / OF.inside
    assert sorted(path.name for path in folder.iterdir()) == sorted(OF.files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "old.key").read_bytes() == (tmp_path / "sa.key").read_bytes()
    assert pair.old == (tmp_path / "sa.pub").read_text()
    shown = run("openssl", "pkey", "-in", str(folder / "new.key"), "-noout", "-text")
    assert ("2048 bit" if kind == "RSA" else "P-384") in shown
    assert who(pair.old) != who(pair.new)
    assert ask(paired(str(folder / "new.pub"), str(folder / "new.key"))).ok
    assert not ask(paired(str(folder / "new.pub"), str(folder / "old.key"))).ok


def test_what_is_no_key_makes_nothing_and_belongs_to_nothing(tmp_path: Path) -> None:
    for name in ("sa.key", "sa.pub", "ca.crt"):
        (tmp_path / name).write_text("no key")
    words = ("bash", "-c", MAKE_KEY, "bash", str(tmp_path / OF.inside), str(tmp_path / "sa"))
    assert subprocess.run(words, check=False, capture_output=True).returncode != 0
    assert not (tmp_path / OF.inside).exists()
    for public in ("sa.pub", "ca.crt"):  # that nothing can be read of both is no agreement
        assert not ask(paired(str(tmp_path / public), str(tmp_path / "sa.key"))).ok


def test_a_keys_hash_and_id_are_those_of_its_der(pair: Pair) -> None:
    der = base64.b64decode("".join(pair.old.splitlines()[1:-1]))
    assert who(pair.old) == f"sha256:{hashlib.sha256(der).hexdigest()}"
    assert kid_of(pair.old) == base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert trusted_by(f"words\n{pair.new}{pair.old}words") == [who(pair.new), who(pair.old)]
    assert (who(""), kid_of("")) == (PLANNED, "")
    assert who("-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----") == PLANNED


async def test_it_is_made_by_its_own_script_and_brought_as_files() -> None:
    host = Written({})
    await PairThere(of=OF).apply(host)  # type: ignore[arg-type]
    (script,) = host.written.values()
    assert script == MAKE_KEY
    texts = {FileText(f"{OF.folder}/{name}"): f"text of {name}" for name in OF.files}
    lead, bare = Written({Listing(OF.folder): OF.files, **texts}, "cp1"), Written({}, "cp2")
    await PairThere(lead, OF).apply(bare)  # type: ignore[arg-type]
    assert set(bare.written) == {f"{OF.part}/{name}" for name in OF.files}
    assert set(bare.modes.values()) == {"600"}
    assert not [line for line in bare.done if "text of" in line]
    seen = await PairThere(of=OF).check(Written({}))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == "no new key"


async def test_sa_key_becomes_the_wanted_one_and_sa_pub_begins_with_its_half(
    tmp_path: Path, pki: Path, pair: Pair
) -> None:
    here = tmp_path / "pki"
    shutil.copytree(pki, here)
    facts: dict[Fact[Any], Any] = {FileText(OF.path): pair.old + pair.new, paired(OF.path, OF.key): answered("")}
    step = SignerIs(pair)
    assert await step.check(KnownFacts(facts)) is not None  # type: ignore[arg-type]
    await step.apply(Shell(facts, {OF.folder: here / OF.inside, OF.base: here / "sa"}))  # type: ignore[arg-type]
    assert trusted_by((here / "sa.pub").read_text()) == [who(pair.new), who(pair.old)]
    assert ask(paired(str(here / "sa.pub"), str(here / "sa.key"))).ok
    assert {stat.S_IMODE((here / name).stat().st_mode) for name in ("sa.key", "sa.pub")} == {0o600}
    trusts, host = AuthorityTrusted((pair.new,), of=OF), Written({FileText(OF.path): pair.new + pair.old})
    await trusts.apply(host)  # type: ignore[arg-type]
    assert (host.written, host.modes) == ({OF.path: pair.new}, {OF.path: "600"})


def test_who_reads_which_file_when_it_starts() -> None:
    public, key = f"{PKI}/sa.pub", f"{PKI}/sa.key"
    assert OF.read_by("kube-apiserver") == (public, key)
    assert OF.read_by("kube-controller-manager") == (public, key)
    assert OF.read_by("etcd") == ()


def test_a_key_of_an_earlier_rotation_is_known_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "sa.pub").write_text("new")
    for time, text in (("20261129T100000Z", "older"), ("20261130T100000Z", "new")):
        folder = tmp_path / f"before-renewal-sa-{time}"
        folder.mkdir()
        (folder / "new.pub").write_text(text)
    words = {OF.kept: str(tmp_path / "before-renewal-sa-"), OF.path: str(tmp_path / "sa.pub")}
    asked = [words.get(word, word) for word in named(OF).command]
    assert run(*asked) == f"{tmp_path}/before-renewal-sa-20261130T100000Z\n"
    (tmp_path / "sa.pub").write_text("another")  # gone back, or a person's
    assert run(*asked) == ""


# --- what forbids it


def api(**more: str) -> dict[Fact[Any], Any]:
    """Return what kubeadm writes of an API server and a controller manager, with other flags for these names."""
    own = {name.replace("-", "_"): path for part, name, path in OF.flags if part == "kube-apiserver"}
    manager = {name.replace("-", "_"): path for part, name, path in OF.flags if part != "kube-apiserver"}
    flags = {**own, "service_account_issuer": ISSUER, **more}
    return {**manifest("kube-apiserver", **flags), **manifest("kube-controller-manager", **manager)}


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ({}, ""),
        ({"service_account_key_file": "/etc/site/keys.pub"}, "SHW-852"),
        ({"service_account_signing_key_file": "/etc/site/key"}, "SHW-852"),
        ({"service_account_signing_endpoint": "/run/signer"}, "SHW-860"),
        ({"service_account_jwks_uri": "https://site/keys"}, "SHW-860"),
        ({"service_account_issuer": "https://issuer.site"}, "SHW-860"),
    ],
)
async def test_who_signs_or_reads_keys_elsewhere_is_named(flags: dict[str, str], code: str) -> None:
    (result,) = await look_at_all([TokensSignedByUs()], KnownFacts(api(**flags)))  # type: ignore[list-item]
    assert (result.error.code if result.error else "") == code
    assert not code or next(iter(flags.values())) in result.error.message  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("flag", "values", "code"),
    [
        ("service-account-key-file", (OF.path, "/etc/site/old.pub"), "SHW-852"),
        ("service-account-issuer", (ISSUER, "https://kubernetes.default.svc"), "SHW-860"),
    ],
)
async def test_a_flag_that_is_given_twice_is_not_taken_for_its_last_value(
    flag: str, values: tuple[str, str], code: str
) -> None:
    facts = api()
    text = FileText("/etc/kubernetes/manifests/kube-apiserver.yaml")
    lines = [line for line in facts[text].splitlines() if f"--{flag}=" not in line]
    at = next(number for number, line in enumerate(lines) if line.endswith("- kube-apiserver"))
    lines[at + 1 : at + 1] = [f"    - --{flag}={value}" for value in reversed(values)]
    assert await codes(TokensSignedByUs(), {**facts, text: "\n".join(lines)}) == code


async def test_without_kubeadms_pair_nothing_begins() -> None:
    fits, not_its = {paired(OF.path, OF.key): answered("")}, {paired(OF.path, OF.key): answered("", 1)}
    assert await codes(KeyThere(OF), {Listing(PKI): ("sa.key",), **fits}) == ""
    assert await codes(KeyThere(OF), {Listing(PKI): (), **fits}) == "SHW-851"
    (result,) = await look_at_all([KeyThere(OF)], KnownFacts({Listing(PKI): ("sa.key",), **not_its}))  # type: ignore[list-item]
    assert result.error is not None
    assert result.error.code == "SHW-851"
    assert "CA" not in result.error.message + result.error.fix  # the way of an external CA is none of this


# --- what an API server says


@pytest.mark.parametrize(
    ("names", "both", "good"),
    [
        (("old", "new"), True, True),
        (("new", "old"), True, True),
        (("old",), True, False),
        (("old", "new"), False, False),
        (("new",), False, True),
    ],
)
async def test_the_keys_that_it_publishes_are_those_and_no_other(
    pair: Pair,
    names: tuple[str, ...],
    both: bool,  # noqa: FBT001
    good: bool,  # noqa: FBT001
) -> None:
    keys = [{"kty": "EC", "kid": kid_of(getattr(pair, name))} for name in names]
    facts: dict[Fact[Any], Any] = {SERVER.get("--raw", "/openid/v1/jwks"): answered(json.dumps({"keys": keys}))}
    step = KeysPublished(pair.both if both else (pair.new,), SERVER)
    seen = await step.check(KnownFacts(facts))  # type: ignore[arg-type]
    assert (seen is None) is good
    shown = sorted(kid_of(getattr(pair, name))[:12] for name in names)
    assert seen is None or seen.have == " and ".join(shown)


@pytest.mark.parametrize(
    "said", [Output(1, "", "error: not found"), answered("no JSON"), answered("[]"), answered("{}")]
)
async def test_what_publishes_no_keys_is_as_wanted_by_nobody(pair: Pair, said: Output) -> None:
    facts: dict[Fact[Any], Any] = {SERVER.get("--raw", "/openid/v1/jwks"): said}
    seen = await KeysPublished(pair.both, SERVER).check(KnownFacts(facts))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == (said.stderr or "none")


def head(kid: str | None) -> str:
    """Return the first part of a token."""
    return base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "kid": kid}).encode()).decode().rstrip("=")


def test_who_signed_a_token_is_read_of_its_first_part() -> None:
    assert signer_of(f"{head('abc')}.claims.mark") == "abc"
    for text in ("", "x", "a.b.c", head(None), base64.urlsafe_b64encode(b"[]").decode(), "é", "[" * 5000):
        assert signer_of(text) == ""


async def test_it_signs_with_the_wanted_key_and_takes_what_it_signed(pair: Pair) -> None:
    for code, key, good in (
        ("200", pair.new, True),
        ("403", pair.new, True),
        ("401", pair.new, False),
        ("200", pair.old, False),
    ):
        facts: dict[Fact[Any], Any] = {requested(SERVER): answered(f"{code} {head(kid_of(key))}\n")}
        assert (await TokenSigned(pair.new, SERVER).check(KnownFacts(facts)) is None) is good  # type: ignore[arg-type]
    assert await TokenSigned(pair.new, SERVER).check(KnownFacts({})) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "refused", "good"),
    [
        ("200", "403", False, True),
        ("401", "200", False, False),
        ("200", "401", False, False),
        ("401", "200", True, True),
        ("200", "200", True, False),
        ("", "200", True, False),  # no answer is not to be turned away
        ("000", "200", True, False),
    ],
)
async def test_both_tokens_are_taken_and_at_the_end_the_old_one_is_turned_away(
    pair: Pair,
    old: str,
    new: str,
    refused: bool,  # noqa: FBT001
    good: bool,  # noqa: FBT001
) -> None:
    facts: dict[Fact[Any], Any] = {**api(), made(SERVER, "old", pair.old, ISSUER, ISSUER): answered(old)}
    facts[made(SERVER, "new", pair.new, ISSUER, ISSUER)] = answered(new)
    step = TokensTaken(pair, SERVER, refused)
    assert (await step.check(KnownFacts(facts)) is None) is good  # type: ignore[arg-type]
    audience = {**api(api_audiences="site,other"), made(SERVER, "old", pair.old, ISSUER, "site"): answered(old)}
    audience[made(SERVER, "new", pair.new, ISSUER, "site")] = answered(new)
    assert (await step.check(KnownFacts(audience)) is None) is good  # type: ignore[arg-type]


class Programs:
    """A kubectl and a curl that keep their arguments, and what curl is given on its standard input."""

    def __init__(self, folder: Path, kubectl: str, code: str = "200") -> None:
        self.folder = folder
        self.write("kubectl", f"cat >/dev/null 2>&1 </dev/null\nprintf '%s' '{kubectl}'")
        self.write("curl", f"cat > {folder}/given\nprintf %s {code}")

    def write(self, name: str, body: str) -> None:
        """Make one."""
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.folder}/arguments\n{body}\n')
        path.chmod(0o700)

    def ask(self, fact: Says, **places: Path) -> Output:
        """Run a fact's script with these, and files of the tests' own in the place of the host's."""
        words = [
            next((str(path) for name, path in places.items() if word.endswith(name)), word) for word in fact.command
        ]
        path = f"{self.folder}:/usr/bin:/bin"
        ran = subprocess.run(words, check=False, capture_output=True, text=True, env={"PATH": path})
        return fact.parse(Output(ran.returncode, ran.stdout, ran.stderr))

    @property
    def token(self) -> str:
        """The token that curl was given."""
        (line,) = (self.folder / "given").read_text().splitlines()
        return line.removeprefix('header = "Authorization: Bearer ').removesuffix('"')

    @property
    def arguments(self) -> str:
        """All arguments of all programs."""
        return (self.folder / "arguments").read_text()


def part(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("kind", [LONG, "P-256", "P-384", "P-521"])
def test_a_token_is_made_as_an_api_server_makes_it_and_stands_in_no_argument(tmp_path: Path, kind: str) -> None:
    pair, programs = make(tmp_path, kind), Programs(tmp_path, "the-uid", "401")
    fact = made(SERVER, "old", pair.old, ISSUER, "site")
    said = programs.ask(fact, **{"old.key": tmp_path / OF.inside / "old.key"})
    assert said.stdout == "401", said.stderr
    first, claims, mark = programs.token.split(".")
    assert programs.token not in programs.arguments
    assert mark not in said.stdout + said.stderr
    assert json.loads(part(first))["kid"] == kid_of(pair.old)
    told = json.loads(part(claims))
    assert (told["iss"], told["aud"], told["sub"]) == (ISSUER, ["site"], "system:serviceaccount:kube-system:default")
    assert told["kubernetes.io"] == {
        "namespace": "kube-system",
        "serviceaccount": {"name": "default", "uid": "the-uid"},
    }
    assert told["exp"] - told["iat"] == 600
    public, signed = load_pem_public_key(pair.old.encode()), f"{first}.{claims}".encode()
    algorithms = {"P-256": ("ES256", SHA256()), "P-384": ("ES384", SHA384()), "P-521": ("ES512", SHA512())}
    if isinstance(public, RSAPublicKey):
        assert json.loads(part(first))["alg"] == "RS256"
        public.verify(part(mark), signed, padding.PKCS1v15(), SHA256())
        return
    name, algorithm = algorithms[kind]
    assert json.loads(part(first))["alg"] == name
    raw = part(mark)
    numbers = (int.from_bytes(one, "big") for one in (raw[: len(raw) // 2], raw[len(raw) // 2 :]))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(utils.encode_dss_signature(*numbers), signed, ec.ECDSA(algorithm))  # type: ignore[arg-type]


def test_of_a_token_that_is_asked_for_only_the_first_part_leaves_the_host(tmp_path: Path) -> None:
    token = f"{head('abc')}.the-claims.the-mark"
    programs = Programs(tmp_path, json.dumps({"status": {"token": token, "expirationTimestamp": "x"}}))
    said = programs.ask(requested(SERVER))
    assert said.stdout == f"200 {head('abc')}\n"
    assert programs.token == token
    assert "the-mark" not in programs.arguments + said.stderr
    assert f"--kubeconfig {ADMIN_CONF} --server {SERVER.url}" in programs.arguments
    assert f"--cacert {AUTHORITY}" in programs.arguments
    silent = Programs(tmp_path, "")
    assert silent.ask(requested(SERVER)).status != 0
    assert silent.ask(made(SERVER, "old", "", ISSUER, ISSUER)).status != 0  # no ServiceAccount to make it for


# --- tokens that are kept


def secret(place: str, signer: str | None, **more: Any) -> dict[str, Any]:
    space, _, name = place.partition("/")
    token = "" if signer is None else base64.b64encode(f"{head(signer)}.x.y".encode()).decode()
    meta = {"namespace": space, "name": name, "resourceVersion": "7", **more}
    return {"kind": "Secret", "type": TOKEN_TYPE, "metadata": meta, "data": {"token": token} if token else None}


def account(place: str, *secrets: str) -> dict[str, Any]:
    space, _, name = place.partition("/")
    listed = [{"name": one} for one in secrets]
    return {"kind": "ServiceAccount", "metadata": {"namespace": space, "name": name}, "secrets": listed}


class Filling(Objects):
    """A cluster whose controller manager fills an empty token by a key; without one it does not."""

    def __init__(self, signer: str, *objects: dict[str, Any]) -> None:
        super().__init__(*objects)
        self.signer = signer

    async def patch(self, api: str, kind: str, name: str, change: Any, namespace: str = "") -> None:
        """Keep the change, and fill what it emptied."""
        if kind != "Secret":
            return await super().patch(api, kind, name, change, namespace)
        self.patched.append((kind, name, change))
        found = await self.get(api, kind, name, namespace)
        assert change["data"] == {"token": None}
        found["data"] = secret(f"{namespace}/{name}", self.signer or None)["data"]
        return None


def everything(old: str, new: str) -> list[dict[str, Any]]:
    """Return Secrets of ours and of others, by both keys and by none."""
    return [
        account("kube-system/proxy", "proxy-token", "proxy-new"),
        account("site/default", "default-token"),
        {"kind": "ServiceAccount", "metadata": {"namespace": "site", "name": "young"}},  # since 1.24 none has any
        secret("site/filled-soon", None),
        secret("kube-system/proxy-token", old),
        secret("kube-system/proxy-new", new),
        secret("kube-system/by-hand", old),
        secret("kube-system/unknown", "another"),  # of a key that no API server takes
        secret("site/default-token", old),
        secret("site/by-new", new),
        secret("site/nameless", ""),
        secret("site/ending", old, deletionTimestamp=NOW),
    ]


async def test_only_what_the_controller_manager_made_for_our_own_parts_is_signed_anew_by_us(pair: Pair) -> None:
    old, new = kid_of(pair.old), kid_of(pair.new)
    step = OwnTokensSigned(pair, OWN, 5.0)
    cluster = Filling(new, *everything(old, new))
    seen = await step.check(cluster)  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == "by another: kube-system/proxy-token"
    assert await tokens_of_others(cluster, pair, OWN) == [  # type: ignore[arg-type]
        "kube-system/by-hand",
        "site/default-token",
        "site/nameless",
    ]
    await step.apply(cluster)  # type: ignore[arg-type]
    assert cluster.patched == [
        ("Secret", "proxy-token", {"metadata": {"resourceVersion": "7"}, "data": {"token": None}})
    ]
    assert await step.check(cluster) is None  # type: ignore[arg-type]
    left = ["kube-system/by-hand", "site/default-token", "site/nameless"]
    assert await tokens_of_others(cluster, pair, OWN) == left  # type: ignore[arg-type]
    back = Pair(pair.old, pair.new, back=True, of=OF)
    assert await tokens_of_others(cluster, back, OWN) == ["site/by-new"]  # type: ignore[arg-type]
    assert step.impact is Impact.SERVICE
    assert "x.y" not in repr(await kept_tokens(cluster))  # type: ignore[arg-type]


async def test_a_token_that_nobody_fills_is_said(pair: Pair) -> None:
    cluster = Filling("", *everything(kid_of(pair.old), kid_of(pair.new)))
    step = OwnTokensSigned(pair, OWN, 0.1)
    with pytest.raises(DeadlineExceeded, match="kube-system/proxy-token"):
        await step.apply(cluster)  # type: ignore[arg-type]
    patched = len(cluster.patched)
    with pytest.raises(DeadlineExceeded):
        await step.apply(cluster)  # type: ignore[arg-type]
    assert len(cluster.patched) == patched  # it is empty already


def at(minutes: float) -> str:
    """Return a time so many minutes from now as the API writes it."""
    return f"{datetime.now(UTC) + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"


def projected(seconds: int | None) -> dict[str, Any]:
    token: dict[str, Any] = {"path": "token"} | ({} if seconds is None else {"expirationSeconds": seconds})
    return {"projected": {"sources": [{"configMap": {"name": "x"}}, {"serviceAccountToken": token}]}}


def mark(minutes: float) -> dict[str, Any]:
    meta = {"name": TOLD, "namespace": "kube-system", "creationTimestamp": at(minutes)}
    return {"kind": "ConfigMap", "metadata": meta, "data": {}}


@pytest.mark.parametrize(
    ("seconds", "minutes"),
    [(3607, 0.8 * 3607 / 60), (None, 48), (600, 8), (86400, 0.8 * 24 * 60), (10 * 86400, 24 * 60)],
)
async def test_a_pods_new_token_is_waited_for_until_its_kubelet_has_asked(seconds: int | None, minutes: float) -> None:
    old = pod("old", "site", at(-60), projected(seconds))
    waiting = await find_waiting(Objects(mark(-5), old))  # type: ignore[arg-type]
    assert waiting is not None
    left = (waiting.until - datetime.now(UTC) - SPARE).total_seconds() / 60
    assert minutes - 5.1 < left < minutes - 4.9
    assert (waiting.over, waiting.pods) == (False, ("site/old",))
    late = await find_waiting(
        Objects(mark(-minutes - 11), {**old, "metadata": {**old["metadata"], "creationTimestamp": at(-3000)}})
    )  # type: ignore[arg-type]
    assert late is not None
    assert late.over


async def test_pods_that_are_younger_or_over_or_have_no_such_token_are_not_waited_for() -> None:
    ended = pod("ended", "site", at(-60), projected(3607))
    ended["status"] = {"phase": "Succeeded"}
    ending = pod("ending", "site", at(-60), projected(3607))
    ending["metadata"]["deletionTimestamp"] = at(-1)
    others = [
        ended,
        ending,
        pod("young", "site", at(-1), projected(3607)),
        pod("none", "site", at(-60), {"emptyDir": {}}),
    ]
    assert await find_waiting(Objects(mark(-5), *others)) is None  # type: ignore[arg-type]
    every = await find_waiting(Objects(*others))  # type: ignore[arg-type] - nothing was signed anew yet
    assert every is not None
    assert every.pods == ("site/young",)


async def test_a_pod_of_the_marks_own_second_is_older_and_what_says_little_of_itself_is_looked_at() -> None:
    told = mark(-5)
    same = pod("same", "site", told["metadata"]["creationTimestamp"], projected(3607))
    del same["status"]
    bare = pod("bare", "site", at(-60))
    bare["spec"] = {}
    waiting = await find_waiting(Objects(told, same, bare))  # type: ignore[arg-type]
    assert waiting is not None
    assert waiting.pods == ("site/same",)


async def test_what_was_told_is_void_once_another_key_begins_to_sign(pair: Pair) -> None:
    cluster = Objects()
    changes, told = SigningChanges(), PodsToldSince((pair.new,))
    assert await changes.check(cluster) is not None  # type: ignore[arg-type]
    await changes.apply(cluster)  # type: ignore[arg-type]
    assert await changes.check(cluster) is None  # type: ignore[arg-type]
    assert await told.check(cluster) is not None  # type: ignore[arg-type]
    await told.apply(cluster)  # type: ignore[arg-type]
    assert await told.check(cluster) is None  # type: ignore[arg-type]
    assert await PodsToldSince((pair.old,)).check(cluster) is not None  # type: ignore[arg-type] - a way back
    assert await changes.check(cluster) is not None  # type: ignore[arg-type]
    await changes.apply(cluster)  # type: ignore[arg-type]
    assert await told.check(cluster) is not None  # type: ignore[arg-type]
    await NoTimeKept().apply(cluster)  # type: ignore[arg-type]
    assert await changes.check(cluster) is not None  # type: ignore[arg-type]
