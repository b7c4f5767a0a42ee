"""Two authorities of a cluster while one takes the other's place: made on one control plane, the same on all of them.

Both lie in a folder of their own beside kubeadm's. The cluster's are read there by the controller manager: that takes
one pair to sign with (kubernetes, pkg/controller/certificates/signer/ca_provider.go), and ca.crt holds two while both
are trusted.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from shipway.errors import Blocked, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.host.session import OPERATIONS, Command, Host
from shipway.kubeadm.writes import PKI
from shipway.ownership.evidence import authorities, certificates_in
from shipway.step import Drift, Impact
from shipway.steps.authority.which import CLUSTER_CA, Which
from shipway.steps.hardening.files import FolderPrivate

STAMP = "%Y%m%dT%H%M%SZ"
DAYS = 3650  # as long as kubeadm's own lives
MAKES = "make-authority"  # as `Host.operate` calls it
SCRIPT = f"{OPERATIONS}/make-authority.sh"
PLANNED = "one that is made"
# Prints how strong the private key in a file is: the bits of RSA's, or of an elliptic curve.
BITS = """
bits() { openssl pkey -in "$1" -noout -text 2>/dev/null | sed -n '1s/.*(\\([0-9]*\\) bit.*/\\1/p'; }
"""
# $1 the folder, $2 the old one's path without its ending, $3 the new one's name, $4 days, $5 kubeadm's name for such a
# one; a key alone has none of these. The new key is as strong as the old one, and in files alone.
_BEGIN = f"""
set -eu
umask 077
{BITS}
folder=$1 base=$2 part=$1.part
rm -rf -- "$part"
mkdir -m 700 -- "$part"
cp -- "$base.key" "$part/old.key"
bits=$(bits "$base.key")
case $bits in
  256|384|521) kind="EC -pkeyopt ec_paramgen_curve:P-$bits -pkeyopt ec_param_enc:named_curve" ;;
  *) kind="RSA -pkeyopt rsa_keygen_bits:${{bits:-2048}}" ;;
esac
# shellcheck disable=SC2086 - several words
openssl genpkey -algorithm $kind -out "$part/new.key" 2>/dev/null
"""
_END = """
chmod 600 -- "$part"/*
sync -f -- "$part"
mv -T -- "$part" "$folder"
"""
MAKE_KEY = f"""{_BEGIN}
for one in old new; do openssl pkey -pubout -in "$part/$one.key" -out "$part/$one.pub"; done
{_END}"""
_CERTIFY = """
name=$3 days=$4 common=$5
cp -- "$base.crt" "$part/old.crt"
cat > "$part/request" <<END
[req]
distinguished_name = name
prompt = no
x509_extensions = authority
[name]
CN = $name
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,digitalSignature,keyEncipherment,keyCertSign
subjectKeyIdentifier = hash
subjectAltName = DNS:$common
END
openssl req -x509 -new -sha256 -key "$part/new.key" -days "$days" -config "$part/request" \\
  -out "$part/new.crt" 2>/dev/null
rm -- "$part/request"
for one in old new; do
  [ "$(openssl x509 -noout -pubkey -in "$part/$one.crt")" = "$(openssl pkey -pubout -in "$part/$one.key")" ]
done
"""
MAKE = f"{_BEGIN}{_CERTIFY}{_END}"
# $1 the certificate or public key, $2 the key: whether they belong together; only public halves are compared.
_PAIRED = (
    'case $1 in *.pub) have=$(openssl pkey -pubin -in "$1") ;; '
    '*) have=$(openssl x509 -noout -pubkey -in "$1") ;; esac; '
    '[ -n "$have" ] && [ "$have" = "$(openssl pkey -pubout -in "$2")" ]'
)
# $1 the folder, $2 the path of kubeadm's own without its ending, $3 the one that signs, $4 the other one, which is
# trusted beside it, $5 the ending of their public halves and $6 who may read those.
_SIGN = """
set -eu
umask 077
folder=$1 base=$2 role=$3 other=$4 half=$5 mode=$6 new=${2%/*}/.${2##*/}
cp -- "$folder/$role.key" "$new.key.shipway-new"
printf '%s\\n' "$(cat -- "$folder/$role.$half")" "$(cat -- "$folder/$other.$half")" > "$new.$half.shipway-new"
chmod 600 -- "$new.key.shipway-new"
chmod "$mode" -- "$new.$half.shipway-new"
sync -f -- "${base%/*}"
mv -fT -- "$new.key.shipway-new" "$base.key"
mv -fT -- "$new.$half.shipway-new" "$base.$half"
"""


_PUBLIC = re.compile(r"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", re.DOTALL)


def paired(public: str, key: str) -> Says:
    """Return the fact of whether a certificate, or a public key, and a key belong together."""
    return Says(("sh", "-c", _PAIRED, "sh", public, key))


def named(of: Which) -> Says:
    """Return the fact of when a new one was made: what it is called, or the folder of the rotation that brought it."""
    if of.half == "crt":
        return Says(("openssl", "x509", "-noout", "-subject", "-in", of.path))
    brought = 'for one in "$0"*; do cmp -s -- "$one/new.pub" "$1" && echo "$one"; done | tail -n 1; exit 0'
    return Says(("sh", "-c", brought, of.kept, of.path))


def who(pem: str) -> str:
    """Return the hash of an authority's key, of a certificate or a key alone; PLANNED for one that is not there yet."""
    if (found := _PUBLIC.search(pem)) is None:
        return next(iter(authorities(pem)), PLANNED)
    try:
        return f"sha256:{hashlib.sha256(base64.b64decode(found[1])).hexdigest()}"
    except ValueError:
        return PLANNED


def trusted_by(text: str) -> list[str]:
    """Return the hashes of the authorities in a text, in its order."""
    return [who(one) for one in (*certificates_in(text), *(match[0] for match in _PUBLIC.finditer(text)))]


def said(hashes: Iterable[str]) -> str:
    """Return hashes as a person reads them."""
    return " and ".join(one.removeprefix("sha256:")[:12] for one in hashes) or "none"


@dataclass(frozen=True)
class Pair:
    """The public halves of both authorities in PEM; `new` is empty in a plan that foresees it.

    `back` goes the other way: then the old one is wanted. `of` is the authority that they are.
    """

    old: str = field(repr=False)
    new: str = field(default="", repr=False)
    back: bool = False
    of: Which = CLUSTER_CA

    @property
    def wanted(self) -> str:
        """The one that is to be left."""
        return self.old if self.back else self.new

    @property
    def leaving(self) -> str:
        """The one that is to go."""
        return self.new if self.back else self.old

    @property
    def both(self) -> tuple[str, ...]:
        """Both of them."""
        return (self.old, self.new)

    def role(self, *, leaving: bool = False) -> str:
        """Return what the files of the wanted one, or of the other, are called in the folder."""
        return "old" if self.back is not leaving else "new"


@dataclass(frozen=True)
class PairThere:
    """Both authorities with their keys are in their folder, root's alone, and the same on every control plane.

    `source` is the control plane that has them already; without one they are made.
    """

    impact: ClassVar[Impact] = Impact.FILES
    source: Host | None = field(default=None, compare=False)
    of: Which = CLUSTER_CA
    name: str = "the old and the new CA lie beside each other"

    async def check(self, on: Host) -> Drift | None:
        """List the folder, compare digests with those of the source. Raises Refused SHW-853 for another pair."""
        names = await on.read(Listing(self.of.folder))
        if set(self.of.files) - set(names):
            return Drift(
                f"no new {self.of.noun}", "one, made here" if self.source is None else f"that of {self.source.name}"
            )
        if self.source is None or self.source.name == on.name:
            return None
        own, theirs = await asyncio.gather(*(host.read_all(self._states) for host in (on, self.source)))
        same = [one.sha256 if one else "" for one in own] == [one.sha256 if one else "" for one in theirs]
        if same:
            return None
        folder = self.of.folder
        fix = (
            f"See which of both pairs any {self.of.path} holds, move {folder} with the other one away, then run again."
        )
        message = f"{folder} has other files than on {self.source.name}, and keys are never written over"
        raise Refused(message, host=on.name, code="SHW-853", fix=fix)

    async def apply(self, on: Host) -> None:
        """Make the new one on this host, or bring what the source has; a folder is there whole or not at all."""
        of = self.of
        if self.source is None or self.source.name == on.name:
            await on.write(SCRIPT, (MAKE if of.half == "crt" else MAKE_KEY).encode(), mode="700")
            name = f"{of.subject}{datetime.now(UTC):{STAMP}}"
            await on.succeed(MAKES, ("bash", SCRIPT, of.folder, of.base, name, str(DAYS), of.common), seconds=120)
            return
        texts = await self.source.read_all([FileText(f"{of.folder}/{name}") for name in of.files])
        if not all(texts):
            raise Blocked(f"{of.folder} is not whole", host=self.source.name, fix="Run the same command again.")
        self.source.forget()  # keys are kept in memory no longer than this takes
        await FolderPrivate("", of.part).apply(on)
        for name, text in zip(of.files, texts, strict=True):
            await on.write(f"{of.part}/{name}", (text or "").encode(), mode="600")
        await on.do(Command(("rm", "-rf", "--", of.folder)), Command(("mv", "-T", "--", of.part, of.folder)))

    @property
    def _states(self) -> list[FileState]:
        return [FileState(f"{self.of.folder}/{name}") for name in self.of.files]


@dataclass(frozen=True)
class SignerIs:
    """The public file begins with the authority that signs from now on, with its key beside; the other is trusted.

    kubeadm signs with the first certificate of ca.crt and ca.key (app/util/pkiutil, TryLoadCertFromDisk).
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    pair: Pair
    name: str = "kubeadm signs with the CA that is wanted"

    async def check(self, on: Host) -> Drift | None:
        """Look at the first certificate, and whether the key is its own."""
        of = self.pair.of
        text, fits = await asyncio.gather(on.read(FileText(of.path)), on.read(paired(of.path, of.key)))
        first = next(iter(trusted_by(text or "")), "")
        if first == who(self.pair.wanted) and fits.ok:
            return None
        return Drift(said([first] if first else []) + ("" if fits.ok else ", without its key"), self._want)

    @property
    def _want(self) -> str:
        return said([who(self.pair.wanted)])

    async def apply(self, on: Host) -> None:
        """Put both halves into their places, the key first; kubeadm refuses a pair that does not fit."""
        of, roles = self.pair.of, (self.pair.role(), self.pair.role(leaving=True))
        await on.do(Command(("sh", "-c", _SIGN, "sh", of.folder, of.base, *roles, of.half, of.mode)))


@dataclass(frozen=True)
class PairKept:
    """The folder of the two authorities lies no more beside kubeadm's files: the rotation is over.

    It is never deleted: whoever has the old key may have signed something with it that somebody still needs to read.
    """

    impact: ClassVar[Impact] = Impact.FILES
    of: Which = CLUSTER_CA
    name: str = "the old CA is put aside"

    async def check(self, on: Host) -> Drift | None:
        """List what is beside kubeadm's certificates."""
        there = self.of.inside in await on.read(Listing(PKI))
        return Drift(self.of.folder, f"{self.of.kept}*") if there else None

    async def apply(self, on: Host) -> None:
        """Move it away."""
        await on.do(Command(("mv", "-T", "--", self.of.folder, f"{self.of.kept}{datetime.now(UTC):{STAMP}}")))
