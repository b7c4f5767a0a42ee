"""The kinds of values in a cluster file: each says in words what it takes, and refuses what could do harm."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationInfo

_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_ADDRESS = r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$"
_ENDPOINT = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?$"
_DNS_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_VERSION = r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,5}$"
_PACKAGE_VERSION = r"^[0-9][A-Za-z0-9.+:~-]*$"
_DRIVER_VERSION = r"^[0-9]{3}\.[0-9]{2,3}(\.[0-9]{2})?$"
_PACKAGE = r"^[a-z0-9][a-z0-9.+-]+$"
_URL = r"^https?://[^\s\x00-\x1f\x7f\"'`$\\<>|;&()]+$"
_PATH = r"^[^\x00-\x1f\x7f]+$"
# useradd(8) takes less; Debian 13's adduser, LDAP and Active Directory take these all (jane.doe, jane@example.com,
# EXAMPLE\jane, 42nd). Not taken is what no account can be called (`:` and blanks, passwd(5)) or what another program
# would read as something else: a leading dash, a slash, shell characters. A backslash parts domain and account.
_USER = r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]*(\\[A-Za-z0-9_][A-Za-z0-9_.@+-]*)?\$?$"
_BLOCK = r"^[a-z0-9][a-z0-9-]*$"
_SHA256 = r"^[0-9a-f]{64}$"
_AGE = r"^age1[02-9ac-hj-np-z]{58}$"
_FINGERPRINT = r"^([0-9A-F]{40}|[0-9A-F]{64})$"
_BUCKET = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
_PREFIX = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}){0,15}/?$"
_REGION = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_IMAGE = r"^[a-z0-9][A-Za-z0-9._:/@-]*$"
_LABEL_KEY = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
_REGISTRY = r"^(_default|[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?)$"
_SUITE = r"^[A-Za-z0-9.{/_][A-Za-z0-9.{}/_-]*$"
_COMPONENT = r"^[a-z0-9][a-z0-9-]*$"
_MIG_LAYOUT = r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,62}$"
_MANIFEST_NAME = r"^[a-z0-9_]+$"
_RAIL = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}/[0-9]{1,3}$"
_INTERFACE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$"
_CIPHER_SUITE = r"^TLS_[A-Z0-9_]+$"

# What each pattern asks for, in words: the text of a fault.
WORDS: dict[str, str] = {
    _NAME: "lower-case letters, digits and dashes, 1 to 63, letter or digit first and last (RFC 1123)",
    _ADDRESS: "an IP address or a DNS name",
    _ENDPOINT: "host or host:port",
    _DNS_NAME: "a DNS name in lower case, no address",
    _VERSION: "three numbers with dots and no `v`, such as 1.31.7",
    _PACKAGE_VERSION: "a package version or its beginning, such as 1.7.27",
    _DRIVER_VERSION: "the version of a driver in quotes, such as '580.95.05'",
    _PACKAGE: "a package name: lower-case letters, digits, `.`, `+` and `-`",
    _URL: "an http:// or https:// address without blanks, quotes or shell characters",
    _PATH: "a file path without control characters",
    _USER: "a user name: letters, digits, `_`, `.`, `@`, `+`, `-`, no dash or dot first; DOMAIN\\name is taken too",
    _BLOCK: "the name of a Prefect block: lower-case letters, digits and dashes",
    _SHA256: "64 lower-case hexadecimal digits",
    _BUCKET: "the name of a bucket: 3 to 63 lower-case letters, digits, dots and dashes",
    _PREFIX: "what keys begin with: words of letters, digits, `.`, `_` and `-`, with `/` between them",
    _REGION: "a region's name: lower-case letters, digits and dashes",
    _FINGERPRINT: "40 or 64 upper-case hexadecimal digits without blanks",
    _IMAGE: "an image reference: registry/name:tag",
    _LABEL_KEY: "a Kubernetes label key",
    _LABEL_VALUE: "a Kubernetes label value: up to 63 letters, digits, `-`, `_` and `.`",
    _REGISTRY: "a registry's host name with an optional port, in lower case, or _default",
    _SUITE: "an apt suite: letters, digits, `/`, `.`, `_` and `-`",
    _COMPONENT: "an apt component: lower-case letters, digits and dashes",
    _MANIFEST_NAME: "lower-case letters, digits and `_`",
    _RAIL: "an adapter of /sys/class/infiniband and the number of its port: mlx5_0/1",
    _INTERFACE: "the name of a network interface: letters, digits, `_`, `.` and `-`, 15 at most",
    _CIPHER_SUITE: "Go's name of a cipher suite, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
}
# What Go's httpproxy takes (golang.org/x/net/http/httpproxy), but for `*`, which would leave nothing to the proxy.
_NO_PROXY = r"^(\*?\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)$"
WORDS[_NO_PROXY] = "a host name, a name with a dot before it, an address or a network"
TEMPLATES = ("{codename}", "{arch}", "{os}", "{minor}", "{release}", "{machine}")


class Part(BaseModel):
    """The base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


def _address(value: str) -> str:
    """Refuse what only looks like an address: 10.0.0.999, a label of 70 letters, 10.0.0.1:22."""
    if re.fullmatch(r"[0-9.]+", value):
        try:
            IPv4Address(value)
        except AddressValueError as error:
            message = f"is no IPv4 address ({error})"
            raise ValueError(message) from error
    elif ":" in value:
        try:
            IPv6Address(value)
        except AddressValueError as error:
            raise ValueError("is no IPv6 address; a port goes into ssh.port") from error
    elif not all(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", label) for label in value.split(".")):
        raise ValueError("is no DNS name: each part has 1 to 63 letters, digits or inner dashes")
    return value


def _endpoint(value: str) -> str:
    host, _, port = value.partition(":")
    _address(host)
    if port and not 1 <= int(port) <= 65535:  # noqa: PLR2004 - the range of ports
        raise ValueError("has a port outside 1 to 65535")
    return value


def _dns_name(value: str) -> str:
    """Refuse an address, and what no label of a name may be."""
    if re.fullmatch(r"[0-9.]+", value):
        raise ValueError("is an address, and must be a name")
    return _address(value)


def _split(value: str) -> SplitResult:
    """Return the parts of a web address; raises ValueError for what is none, a port outside its range too."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        message = f"is no web address ({error})"
        raise ValueError(message) from error
    return parts


def _url(value: str) -> str:
    """Refuse credentials (they would be printed) and unknown placeholders."""
    rest = value
    for template in TEMPLATES:
        rest = rest.replace(template, "x")
    if "{" in rest or "}" in rest:
        message = f"has an unknown placeholder; known: {', '.join(TEMPLATES)}"
        raise ValueError(message)
    parts = _split(rest)
    if not parts.hostname:
        raise ValueError("names no host")
    if "@" in parts.netloc:
        raise ValueError("holds credentials: they would end up in logs; use a mirror that needs none")
    return value


# One registry by several names: images are named by the first (distribution/reference has the others as legacy), and
# containerd looks for its settings under that.
DOCKER = "docker.io"
DOCKER_ALIASES = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com")


def _registry(value: str) -> str:
    return DOCKER if value in DOCKER_ALIASES else value


def _image(value: Any) -> Any:
    """Tell what is no image reference in the words of what was probably meant; Docker's registry has one name."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if "://" in value:
        raise ValueError("is no web address: write it without http:// or https://")
    if "//" in value:
        raise ValueError("has two slashes in a row")
    name = value.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = f"{head}{slash}{last.partition(':')[0] if slash else last}"
    if name != name.lower():
        message = f"must be in lower case: {name.lower()}"
        raise ValueError(message)
    first, slash, rest = value.partition("/")
    return f"{_registry(first)}/{rest}" if slash else value


def _repository(value: Any) -> Any:
    """Take an image's name, or the beginning of names, without tag and digest; a last slash goes."""
    if not isinstance(value, str):
        return value
    value = _image(value.strip().rstrip("/"))
    _, slash, last = value.rpartition("/")
    if "@" in value or (slash and ":" in last):
        raise ValueError("must have no tag and no digest: versions are keys of their own")
    return value


def _mirror(value: str) -> str:
    """Refuse a path of which nobody can tell what is asked below it: /v2 stands before or behind it."""
    parts = urlsplit(value)
    if parts.query or parts.fragment:
        raise ValueError("must end with its path")
    segments = [part for part in parts.path.split("/") if part]
    if segments and "v2" not in segments:
        place, path = f"{parts.scheme}://{parts.netloc}", "/".join(segments)
        message = (
            f"has a path without /v2: write {place}/v2/{path} (Harbor's projects and alike) or {place}/{path}/v2 "
            "(Artifactory's repositories and alike), whichever the mirror answers at"
        )
        raise ValueError(message)
    return "/".join([f"{parts.scheme}://{parts.netloc}", *segments])


def _proxy(value: str) -> str:
    """Refuse what programs would read in different ways: a proxy without port, with a path, with a password."""
    parts = _split(value)
    if "@" in parts.netloc:
        raise ValueError("holds credentials: they would end up in logs; write them into the file of proxy.credentials")
    if not parts.hostname or parts.port is None:
        raise ValueError("must name host and port, as http://proxy.example.com:3128 (programs take different ports)")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must end with the port")
    return f"{parts.scheme}://{parts.netloc}"


def _as_list(value: Any) -> Any:
    """Take a NO_PROXY as the environment has it: one text with commas."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _place(value: str, info: ValidationInfo) -> str:
    """Resolve a file as `_path` does; `block:NAME` stays."""
    if value.startswith("block:") and not re.fullmatch(r"block:[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError("must be block:NAME with the name of a Secret block, or a file")
    return value if value.startswith("block:") else _path(value, info)


def _age(value: str) -> str:
    """Refuse a public key of age that was mistyped, by its checksum (BIP 173, as age's own format says)."""
    letters, check = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 1
    human = [ord(one) >> 5 for one in "age"] + [0] + [ord(one) & 31 for one in "age"]
    for number in (*human, *(letters.index(one) for one in value.removeprefix("age1"))):
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ number
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= term if top >> bit & 1 else 0
    if check != 1:
        raise ValueError("is no public key of age: its checksum is wrong, so something was mistyped")
    return value


def _template(value: str) -> str:
    _url(f"http://suite/{value}")
    return value


def _path(value: str, info: ValidationInfo) -> str:
    """Resolve a relative path against the cluster file's folder, where the reader says which that is."""
    folder = (info.context or {}).get("folder")
    relative = folder is not None and not value.startswith(("/", "~"))
    return str(Path(str(folder)) / value) if relative else value


def _text_or(kind: type[Any]) -> BeforeValidator:
    """Numbers are no addresses, though ipaddress takes them: 5 would be 0.0.0.5."""

    def check(value: Any) -> Any:
        if not isinstance(value, str | kind):
            example = "10.244.0.0/16" if kind is IPv4Network else "10.0.0.1"
            message = f"must be text, such as {example}"
            raise ValueError(message)  # noqa: TRY004 - Pydantic makes faults of ValueErrors
        return value

    return BeforeValidator(check)


def _network(value: Any) -> Any:
    """Say which network was meant where host bits are set."""
    if isinstance(value, str):
        try:
            meant = IPv4Network(value.strip(), strict=False)
        except ValueError as error:
            message = f"is no IPv4 network ({error})"
            raise ValueError(message) from error
        if str(meant) != value.strip() and "/" in value:
            message = f"has host bits set; the network is {meant}"
            raise ValueError(message)
    return value


def _plain(value: Any) -> Any:
    """Refuse what is not JSON (dates, bytes): it could not be passed on unchanged."""
    return _plain_at(value, "")


def _plain_at(value: Any, place: str) -> Any:
    at = f" at {place}" if place else ""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            message = f"has a key{at} that is not text: put it in quotes"
            raise ValueError(message)
        return {key: _plain_at(item, f"{place}.{key}".removeprefix(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_at(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if value is not None and not isinstance(value, str | int | float | bool):
        message = f"holds a {type(value).__name__}{at}: put it in quotes"
        raise ValueError(message)
    return value


Name = Annotated[str, StringConstraints(pattern=_NAME)]
Address = Annotated[str, StringConstraints(pattern=_ADDRESS), AfterValidator(_address)]
Endpoint = Annotated[str, StringConstraints(pattern=_ENDPOINT), AfterValidator(_endpoint)]
DnsName = Annotated[str, StringConstraints(pattern=_DNS_NAME), AfterValidator(_dns_name)]
Version = Annotated[str, StringConstraints(pattern=_VERSION)]
PackageVersion = Annotated[str, StringConstraints(pattern=_PACKAGE_VERSION, max_length=128)]
DriverVersion = Annotated[str, StringConstraints(pattern=_DRIVER_VERSION)]
Package = Annotated[str, StringConstraints(pattern=_PACKAGE, max_length=128)]
Url = Annotated[str, StringConstraints(pattern=_URL, max_length=2048), AfterValidator(_url)]
FilePath = Annotated[str, StringConstraints(pattern=_PATH, max_length=4096), AfterValidator(_path)]
ProxyUrl = Annotated[str, StringConstraints(pattern=_URL, max_length=2048), AfterValidator(_proxy)]
NoProxy = Annotated[str, StringConstraints(pattern=_NO_PROXY, max_length=253, to_lower=True)]
NoProxies = Annotated[tuple[NoProxy, ...], BeforeValidator(_as_list)]
SecretPlace = Annotated[str, StringConstraints(pattern=_PATH, max_length=4096), AfterValidator(_place)]
UnixUser = Annotated[str, StringConstraints(pattern=_USER, max_length=256)]
SecretBlock = Annotated[str, StringConstraints(pattern=_BLOCK, max_length=255)]
Sha256 = Annotated[str, StringConstraints(pattern=_SHA256)]
AgeRecipient = Annotated[str, StringConstraints(pattern=_AGE), AfterValidator(_age)]
Bucket = Annotated[str, StringConstraints(pattern=_BUCKET)]
KeyPrefix = Annotated[str, StringConstraints(pattern=_PREFIX, max_length=512)]
Region = Annotated[str, StringConstraints(pattern=_REGION)]
Fingerprint = Annotated[str, StringConstraints(pattern=_FINGERPRINT)]
ImageRef = Annotated[str, StringConstraints(pattern=_IMAGE, max_length=512), BeforeValidator(_image)]
ImageRepository = Annotated[str, StringConstraints(pattern=_IMAGE, max_length=512), BeforeValidator(_repository)]
MirrorUrl = Annotated[
    str, StringConstraints(pattern=_URL, max_length=2048), AfterValidator(_url), AfterValidator(_mirror)
]
LabelKey = Annotated[str, StringConstraints(pattern=_LABEL_KEY)]
MigLayout = Annotated[str, StringConstraints(pattern=_MIG_LAYOUT)]
LabelValue = Annotated[str, StringConstraints(pattern=_LABEL_VALUE)]
Registry = Annotated[str, StringConstraints(pattern=_REGISTRY, max_length=253), AfterValidator(_registry)]
Suite = Annotated[str, StringConstraints(pattern=_SUITE, max_length=128), AfterValidator(_template)]
Component = Annotated[str, StringConstraints(pattern=_COMPONENT, max_length=64)]
ManifestName = Annotated[str, StringConstraints(pattern=_MANIFEST_NAME, max_length=64)]
Rail = Annotated[str, StringConstraints(pattern=_RAIL)]
Interface = Annotated[str, StringConstraints(pattern=_INTERFACE)]
CipherSuite = Annotated[str, StringConstraints(pattern=_CIPHER_SUITE, max_length=64)]
NodeAddress = Annotated[IPv4Address, _text_or(IPv4Address)]
PodNetwork = Annotated[IPv4Network, BeforeValidator(_network), _text_or(IPv4Network)]
Plain = Annotated[dict[str, Any], BeforeValidator(_plain)]
Role = Literal["control_plane", "worker"]
# Strict: `true` is no number and "22" is text, whatever YAML readers make of them elsewhere.
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True)]
Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
