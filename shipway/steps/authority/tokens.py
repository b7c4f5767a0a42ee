"""The key that signs the tokens of ServiceAccounts: what API servers publish of it, sign by it and take.

A key's id is the SHA-256 of its public half in DER, in base64url without its end (pkg/serviceaccount/jwt.go,
keyIDFromPublicKey, the same in 1.20 and 1.36): what a token's header names. --service-account-key-file reads every key
of its file (client-go, util/keyutil, ParsePublicKeysPEM), and all of them are published (openidmetadata.go).
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field

from shipway.edits.static_pod import command_of
from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.foreign.yaml import read_yaml
from shipway.host.session import Host
from shipway.kube.access import ADMIN_CONF
from shipway.kube.record import SYSTEM
from shipway.kubeadm.certificates import APISERVER
from shipway.ownership.evidence import AUTHORITY
from shipway.redact import tail
from shipway.step import Drift
from shipway.steps.authority.own_server import OwnServer
from shipway.steps.authority.pair import BITS, Pair, who
from shipway.steps.authority.signing import FilesReadByUs, flags_of
from shipway.steps.authority.which import SERVICE_ACCOUNTS

ISSUER = "service-account-issuer"
OWN_ISSUER = "https://kubernetes.default.svc"  # kubeadm's, before the cluster's domain
ELSEWHERE = ("service-account-signing-endpoint", "service-account-jwks-uri")
ACCOUNT = "default"  # the ServiceAccount that proofs are made of: every namespace has it, and it may do nothing
LIFE = 600  # seconds, the shortest that an API server gives (its validation of TokenRequest)
TAKEN, TURNED_AWAY = ("200", "403"), "401"  # who is known may not be allowed; who is not known is turned away
_SECONDS = 30
# What both ask of an API server: $1 its URL, $2 admin.conf, $3 the CA. A token is in variables and pipes alone: words
# of a builtin are no process's arguments.
_ASKS = """
set -u
url=$1 conf=$2 ca=$3
own() { kubectl --kubeconfig "$conf" --server "$url" --request-timeout=8s "$@"; }
b64() { base64 -w 0 | tr '+/' '-_' | tr -d '='; }
shown() {
  printf 'header = "Authorization: Bearer %s"\\n' "$1" | curl -sS --noproxy '*' --max-time 8 --cacert "$ca" -K - \\
    -o /dev/null -w '%{http_code}' "$url/api"
}
"""
# $4 the request, $5 its path. Prints whether the API server takes the token that it gave, then the token's first part.
_REQUESTED = (
    _ASKS
    + """
said=$(printf %s "$4" | own create --raw "$5" -f -) || exit 1
token=$(printf %s "$said" | sed -n 's/.*"token": *"\\([^"]*\\)".*/\\1/p')
[ -n "$token" ] || exit 1
shown "$token"
printf ' %s\\n' "${token%%.*}"
"""
)
# $4 the key, $5 its id, $6 who issues, $7 for whom, $8 and $9 the ServiceAccount's namespace and name, ${10} its
# token's life in seconds. Prints whether the API server takes a token that the key signs.
_MADE = (
    _ASKS
    + BITS
    + """
key=$4 kid=$5 iss=$6 aud=$7 space=$8 name=$9 life=${10}
uid=$(own -n "$space" get serviceaccount "$name" -o 'jsonpath={.metadata.uid}') && [ -n "$uid" ] || exit 1
case $(bits "$key") in
  256) alg=ES256 hash=sha256 size=64 ;; 384) alg=ES384 hash=sha384 size=96 ;; 521) alg=ES512 hash=sha512 size=132 ;;
  *) alg=RS256 hash=sha256 size=0 ;;
esac
now=$(date +%s)
head=$(printf '{"alg":"%s","kid":"%s"}' "$alg" "$kid" | b64)
claims='{"aud":["%s"],"exp":%s,"iat":%s,"iss":"%s","kubernetes.io":{"namespace":"%s","serviceaccount":{"name":"%s",'
claims=$claims'"uid":"%s"}},"nbf":%s,"sub":"system:serviceaccount:%s:%s"}'
# shellcheck disable=SC2059 - the format is ours
body=$(printf "$claims" "$aud" "$((now + life))" "$now" "$iss" "$space" "$name" "$uid" "$now" "$space" "$name" | b64)
signed() { printf %s "$head.$body" | openssl dgst "-$hash" -sign "$key" -binary; }
if [ "$size" = 0 ]; then
  mark=$(signed | b64)
else # a token has both numbers side by side (RFC 7518, 3.4), openssl has them in DER
  both=$(signed | openssl asn1parse -inform DER | sed -n 's/.*INTEGER *://p' | while read -r one; do
    one=$(printf "%${size}s" "$one" | tr ' ' 0); printf %s "${one:$((${#one} - size))}"
  done)
  mark=$(printf "$(printf %s "$both" | sed 's/../\\\\x&/g')" | b64)
fi
[ -n "$mark" ] || exit 1
shown "$head.$body.$mark"
"""
)


def kid_of(pem: str) -> str:
    """Return a key's id, as tokens name it; "" for one that is not there yet."""
    digest = who(pem).removeprefix("sha256:")
    try:
        return base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
    except ValueError:
        return ""


def signer_of(token: str) -> str:
    """Return the key id that a token's first part names; "" where it names none, or is no token."""
    head = token.partition(".")[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return ""
    return str(found.get("kid") or "") if isinstance(found, dict) else ""


def short(kid: str) -> str:
    """Return a key id as a person reads it."""
    return kid[:12] or "none"


@dataclass(frozen=True)
class TokensSignedByUs:
    """Tokens are signed and checked on the control planes, by kubeadm's own files and as its issuer alone."""

    name: str = "what signs and takes tokens reads kubeadm's files"

    async def check(self, on: Host) -> Drift | None:
        """Look at flags. Raises Refused SHW-852 for other files, SHW-860 where somebody else signs or reads keys."""
        text, _ = await flags_of(on, APISERVER)
        words = [word[2:].partition("=") for word in command_of(read_yaml(text))]
        issuers = [value for name, _, value in words if name == ISSUER]
        elsewhere = [f"--{name}={value}" for name, _, value in words if name in ELSEWHERE]
        elsewhere += [f"--{ISSUER}={one}" for one in issuers if not one.startswith(OWN_ISSUER) or len(issuers) > 1]
        if elsewhere:
            message = f"tokens are signed, or their keys read, outside of the control planes: {', '.join(elsewhere)}"
            fix = (
                "Whoever set that knows who reads these keys, and rotates by the page of that signer or issuer "
                "(kubernetes.io, `Configure Service Accounts for Pods`); Shipway changes nothing of it."
            )
            raise Refused(message, host=on.name, code="SHW-860", fix=fix)
        files = [value for name, _, value in words if name == SERVICE_ACCOUNTS.flags[0][1]]
        if len(files) > 1:
            message = f"{APISERVER} takes tokens of several files: {', '.join(files)}"
            fix = f"Leave {SERVICE_ACCOUNTS.path} alone, once no token of the others is in use, then run again."
            raise Refused(message, host=on.name, code="SHW-852", fix=fix)
        return await FilesReadByUs(SERVICE_ACCOUNTS).check(on)


@dataclass(frozen=True)
class KeysPublished:
    """A control plane's own API server takes tokens of these keys (PEM) and of no other: it publishes their ids."""

    keys: tuple[str, ...] = field(repr=False)
    server: OwnServer
    name: str = "the API server here takes tokens of the keys that are wanted"

    async def check(self, on: Host) -> Drift | None:
        """Ask it for its keys (OpenID Connect Discovery: kubeadm's API servers have them since 1.20)."""
        said = await on.read(self.server.get("--raw", "/openid/v1/jwks"))
        want, have = sorted(map(kid_of, self.keys)), _published(said.stdout)
        if have == want:
            return None
        why = " and ".join(map(short, have)) if have else tail(said.stderr, 1) or "none"
        return Drift(why, " and ".join(map(short, want)))


def _published(text: str) -> list[str]:
    try:
        return sorted(str(one["kid"]) for one in json.loads(text)["keys"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return []


@dataclass(frozen=True)
class TokenSigned:
    """A control plane's own API server signs a token that it is asked for with this key (PEM), and takes it."""

    key: str = field(repr=False)
    server: OwnServer
    name: str = "the API server here signs tokens with the key that is wanted"

    async def check(self, on: Host) -> Drift | None:
        """Ask for one; no more of it than its first part, which names the key, leaves the host."""
        said = await on.read(requested(self.server))
        code, _, head = said.stdout.strip().partition(" ")
        have, want = signer_of(head), kid_of(self.key)
        if have == want and code in TAKEN:
            return None
        return Drift(f"by {short(have)}, answered {code or tail(said.stderr, 1) or 'nothing'}", f"by {short(want)}")


def requested(server: OwnServer) -> Says:
    """Return the fact of what signs a token that an API server is asked for, and whether it takes that."""
    api = "authentication.k8s.io/v1"
    request = json.dumps({"apiVersion": api, "kind": "TokenRequest", "spec": {"expirationSeconds": LIFE}})
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{ACCOUNT}/token"
    own = (server.url, ADMIN_CONF, AUTHORITY)
    return Says(("bash", "-c", _REQUESTED, "bash", *own, request, path), seconds=_SECONDS)


@dataclass(frozen=True)
class TokensTaken:
    """A control plane's own API server takes tokens that some keys of a pair sign, and turns others away (`refused`).

    They are made on the host with the keys that lie there, for minutes, for a ServiceAccount that may do nothing.
    """

    pair: Pair
    server: OwnServer
    refused: bool = False

    @property
    def name(self) -> str:
        """The fact."""
        return f"the API server here {'takes tokens of the wanted key alone' if self.refused else 'takes both tokens'}"

    async def check(self, on: Host) -> Drift | None:
        """Show it one of each."""
        _, flags = await flags_of(on, APISERVER)
        issuer = flags.get(ISSUER, "")
        audience = flags.get("api-audiences", issuer).partition(",")[0]
        roles = (self.pair.role(), self.pair.role(leaving=True))
        keys = (self.pair.wanted, self.pair.leaving)
        facts = [made(self.server, role, key, issuer, audience) for role, key in zip(roles, keys, strict=True)]
        answers = await on.read_all(facts)
        good = (TAKEN, (TURNED_AWAY,) if self.refused else TAKEN)
        wrong = [
            f"{role}: {said.stdout.strip() or tail(said.stderr, 1) or 'no answer'}"
            for role, said, codes in zip(roles, answers, good, strict=True)
            if said.stdout.strip() not in codes
        ]
        want = f"{roles[0]}: taken, {roles[1]}: {'turned away' if self.refused else 'taken'}"
        return Drift("; ".join(wrong), want) if wrong else None


def made(server: OwnServer, role: str, key: str, issuer: str, audience: str) -> Says:
    """Return the fact of what an API server answers to a token that a key of the folder signs."""
    own = (server.url, ADMIN_CONF, AUTHORITY, f"{SERVICE_ACCOUNTS.folder}/{role}.key", kid_of(key))
    words = (*own, issuer, audience, SYSTEM, ACCOUNT, str(LIFE))
    return Says(("bash", "-c", _MADE, "bash", *words), seconds=_SECONDS)
