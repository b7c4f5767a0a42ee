"""containerd's configuration: what it must say, in each of its layouts, and how to tell from the effective dump."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import tomli_w

from shipway.edits.toml import NotEditableError, with_settings
from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import GpuRuntime

CONFIG = "/etc/containerd/config.toml"
BEFORE = f"{CONFIG}.before-shipway"  # the file as it was before our first edit
CERTS = "/etc/containerd/certs.d"
Path = tuple[str, ...]
# Layout 2 is containerd 1.x; 3 is 2.0 to 2.2, 4 is 2.3: they split the CRI plugin into runtime and images.
_V2 = ("plugins", "io.containerd.grpc.v1.cri")
_RUNTIME = ("plugins", "io.containerd.cri.v1.runtime")
_IMAGES = ("plugins", "io.containerd.cri.v1.images")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration must bring about; `runtime` adds the GPUs' one, `by_default` makes it the default."""

    sandbox_image: str
    runtime: GpuRuntime | None = None
    by_default: bool = False
    restrict_oom_score_adj: bool = False


class UnreadableError(ValueError):
    """The text is no containerd configuration of a known layout."""


def parse_config(text: str) -> dict[str, Any]:
    """Return the configuration as data; raises UnreadableError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnreadableError(f"not TOML: {error}") from error
    if data.get("version") not in (2, 3, 4):
        raise UnreadableError(f"configuration version {data.get('version')!r} is not 2, 3 or 4")
    disabled = data.get("disabled_plugins", [])
    if not isinstance(disabled, list) or not all(isinstance(name, str) for name in disabled):
        raise UnreadableError("disabled_plugins is no list of names")
    return data


def settings(data: Mapping[str, Any], wanted: Wanted, *, lists: bool | None = None) -> dict[Path, Any]:
    """Return each setting's path and value in the layout of this configuration (2, 3 or 4).

    `lists` says whether this containerd has a list of folders for CNI programs; by default the data itself shows it.
    """
    layout = data["version"]
    runtime, images = (_V2, _V2) if layout == 2 else (_RUNTIME, _IMAGES)  # noqa: PLR2004 - layout 2
    sandbox = ("sandbox_image",) if layout == 2 else ("pinned_images", "sandbox")  # noqa: PLR2004
    runtimes = (*runtime, "containerd", "runtimes")
    default = wanted.runtime.handler if wanted.runtime and wanted.by_default else "runc"
    values: dict[Path, Any] = {
        (*images, *sandbox): wanted.sandbox_image,
        (*images, "registry", "config_path"): CERTS,
        (*runtime, "cni", "conf_dir"): "/etc/cni/net.d",
        **_plugin_folder(data, (*runtime, "cni"), lists=lists),
        (*runtime, "restrict_oom_score_adj"): wanted.restrict_oom_score_adj,
        (*runtime, "containerd", "default_runtime_name"): default,
        (*runtimes, "runc", "runtime_type"): "io.containerd.runc.v2",
        (*runtimes, "runc", "options", "SystemdCgroup"): True,
    }
    if wanted.runtime:  # what a vendor's own tool sets, and the cgroup driver on both (nvidia-docker#1788)
        handler = (*runtimes, wanted.runtime.handler)
        values |= {
            (*handler, "runtime_type"): "io.containerd.runc.v2",
            (*handler, "privileged_without_host_devices"): False,
            (*handler, "options", "BinaryName"): wanted.runtime.program,
            (*handler, "options", "SystemdCgroup"): True,
        }
    return values


def _plugin_folder(data: Mapping[str, Any], cni: Path, *, lists: bool | None) -> dict[Path, Any]:
    """Return where CNI programs are: kubernetes-cni puts them into /opt/cni/bin, Debian's containerd looks elsewhere.

    Newer containerd has a list `bin_dirs` and refuses both beside each other ("`cni.bin_dir` and `cni.bin_dirs` cannot
    be set at the same time"): its list is set, and an old `bin_dir` of the same file is emptied. In a file of layout 2
    it makes its list of `bin_dir`, an empty one too (seen with 2.1.9), so there that is set alone.
    """
    shown = _at(data, cni)
    shown = shown if isinstance(shown, Mapping) else {}
    if data["version"] != 2 and (lists if lists is not None else "bin_dirs" in shown):  # noqa: PLR2004 - layout 2
        old = {(*cni, "bin_dir"): ""} if shown.get("bin_dir") else {}
        return {(*cni, "bin_dirs"): ["/opt/cni/bin"], **old}
    return {(*cni, "bin_dir"): "/opt/cni/bin"}


def _is_cri(plugin: str) -> bool:
    """Tell whether a name in disabled_plugins turns the CRI off: `cri`, or one of its plugins' whole names."""
    return plugin == "cri" or plugin in (_V2[1], _RUNTIME[1], _IMAGES[1], "io.containerd.grpc.v1.cri")


def edit_config(text: str, default: str, wanted: Wanted) -> str:
    """Return config.toml with our settings, each other byte as it was; raises NotEditableError, UnreadableError.

    `default` is what `containerd config default` prints: it tells the layout for a file that has none of its own. What
    has other owners stays: root and state, other runtimes, snapshotters, imports.
    """
    known = parse_config(default)
    data = _laid_out(text, known["version"])
    runtime, images = (_V2, _V2) if data["version"] == 2 else (_RUNTIME, _IMAGES)  # noqa: PLR2004 - layout 2
    registry = _at(data, (*images, "registry"))
    if clash := [*(_at(registry, ("mirrors",)) or ()), *(n for n, one in _configs(registry) if "tls" in one)]:
        message = f"registry settings for {', '.join(clash)} stand in it, and config_path may not stand beside them"
        raise NotEditableError(message)
    shown = _at(known, (*(_V2 if known["version"] == 2 else _RUNTIME), "cni"))  # noqa: PLR2004 - layout 2
    values = settings(data, wanted, lists="bin_dirs" in shown)
    chosen = (*runtime, "containerd", "default_runtime_name")
    if not wanted.runtime and VENDOR.runtime and _at(data, chosen) == VENDOR.runtime.handler:
        del values[chosen]  # the next stage's affair
    first: dict[Path, Any] = {("version",): data["version"]}
    names = data.get("disabled_plugins", [])
    if any(_is_cri(name) for name in names):
        first["disabled_plugins",] = [name for name in names if not _is_cri(name)]
    return with_settings(text, first | values)


def _configs(registry: Any) -> list[tuple[str, Mapping[str, Any]]]:
    found = _at(registry, ("configs",)) if isinstance(registry, Mapping) else {}
    return [(str(name), one) for name, one in found.items() if isinstance(one, Mapping)]


# These mean the same in every layout; a file without a version that has others is one of layout 1 (containerd 1.x:
# config.toml(5), "version"), whose plugins have other names.
_ANY_LAYOUT = frozenset(
    {
        *("root", "state", "temp", "plugin_dir", "oom_score", "cgroup", "imports", "disabled_plugins", "debug", "grpc"),
        *("ttrpc", "metrics", "timeouts", "proxy_plugins", "stream_processors"),
    }
)


def _laid_out(text: str, layout: int) -> dict[str, Any]:
    """Return the data of a file, with a layout where it tells none; raises NotEditableError, UnreadableError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotEditableError(f"not TOML: {error}") from error
    if "version" not in data:
        short = [name for name in data.get("disabled_plugins", []) if "." not in str(name) and name != "cri"]
        if other := [*(key for key in data if key not in _ANY_LAYOUT), *short]:
            message = f"it tells no version, so {', '.join(other)} is of layout 1, which ended with containerd 1.x"
            raise NotEditableError(message)
        data["version"] = layout
    return parse_config(tomli_w.dumps(data))


def _at(data: Mapping[str, Any], path: Path) -> Any:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return {}
        data = data[part]
    return data


def differences(dump: str, wanted: Wanted) -> list[str]:
    """Return what an effective dump (`containerd config dump`) lacks, a short sentence each; raises UnreadableError."""
    data = parse_config(dump)
    wrong = [f"{name} is disabled" for name in data.get("disabled_plugins", []) if _is_cri(name)]
    for path, want in settings(data, wanted).items():
        have = _at(data, path)
        if have != want and not (want is False and have == {}):
            wrong.append(f"{'.'.join(path[2:])} = {'unset' if have == {} else have}")
    return wrong


def _sandbox_path(layout: int) -> Path:
    """Return where a layout keeps the sandbox image."""
    return (*_V2, "sandbox_image") if layout == 2 else (*_IMAGES, "pinned_images", "sandbox")  # noqa: PLR2004


def sandbox_of(text: str) -> str:
    """Return the sandbox image that a configuration or a dump names, "" for none; raises UnreadableError."""
    data = parse_config(text)
    found = _at(data, _sandbox_path(data["version"]))
    return found if isinstance(found, str) else ""


def with_sandbox(text: str, image: str) -> str:
    """Return a configuration with another sandbox image and nothing else changed.

    Raises UnreadableError, and NotEditableError where it cannot be set without a change of something else.
    """
    return with_settings(text, {_sandbox_path(parse_config(text)["version"]): image})


def imports_of(dump: str) -> list[str]:
    """Return the files that an effective dump says it was made of, config.toml left out."""
    named = parse_config(dump).get("imports", [])
    return [str(path) for path in named if path != CONFIG] if isinstance(named, list) else []


def root_of(dump: str) -> str:
    """Return where containerd keeps its images and containers; raises UnreadableError."""
    return str(parse_config(dump).get("root") or "/var/lib/containerd")


@dataclass(frozen=True, slots=True)
class Door:
    """One way into a registry: its address, its CA's file on the host, and `USER:PASSWORD` in base64."""

    url: str
    ca: str = ""
    basic: str = field(default="", repr=False)

    def table(self) -> dict[str, Any]:
        """Return its table of hosts.toml.

        containerd adds /v2 to an address unless `override_path` says that the path is whole (containerd docs, hosts.md,
        "override_path"): a mirror below a path would be asked for /v2/PROJECT/v2/IMAGE.
        """
        found: dict[str, Any] = {"capabilities": ["pull", "resolve"]}
        if urlsplit(self.url).path.strip("/"):
            found["override_path"] = True
        if self.ca:
            found["ca"] = self.ca
        if self.basic:
            found["header"] = {"authorization": f"Basic {self.basic}"}
        return found


def server_of(registry: str) -> str:
    """Return where a registry itself answers; docker.io serves no images under its own name."""
    return "https://registry-1.docker.io" if registry == "docker.io" else f"https://{registry}"


KEPT = "# Kept by Shipway: declared in the cluster file under `sources`.\n"


def hosts_toml(registry: str, *doors: Door) -> str:
    """Return certs.d/REGISTRY/hosts.toml: the doors are tried in order; the registry itself stays the fallback.

    `_default` stands for every registry, so it has no server of its own to fall back to.
    """
    table: dict[str, Any] = {} if registry == "_default" else {"server": server_of(registry)}
    return KEPT + tomli_w.dumps({**table, "host": {door.url: door.table() for door in doors}})
