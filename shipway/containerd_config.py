"""containerd's configuration: what it must say, in each of its layouts, and how to tell from the effective dump."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tomli_w

CONFIG = "/etc/containerd/config.toml"
CERTS = "/etc/containerd/certs.d"
NVIDIA_RUNTIME = "/usr/bin/nvidia-container-runtime"
Path = tuple[str, ...]
# Layout 2 is containerd 1.x; 3 is 2.0 to 2.2, 4 is 2.3: they split the CRI plugin into runtime and images.
_V2 = ("plugins", "io.containerd.grpc.v1.cri")
_RUNTIME = ("plugins", "io.containerd.cri.v1.runtime")
_IMAGES = ("plugins", "io.containerd.cri.v1.images")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration must bring about; `nvidia` adds the runtime, `default_nvidia` makes it the default."""

    sandbox_image: str
    nvidia: bool = False
    default_nvidia: bool = False
    restrict_oom_score_adj: bool = False


class UnreadableError(ValueError):
    """The text is no containerd configuration of a known layout."""


def parsed(text: str) -> dict[str, Any]:
    """Give the configuration as data; raises UnreadableError."""
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


def settings(data: Mapping[str, Any], wanted: Wanted) -> dict[Path, Any]:
    """Give each setting's path and value in the layout of this configuration (2, 3 or 4)."""
    layout = data["version"]
    runtime, images = (_V2, _V2) if layout == 2 else (_RUNTIME, _IMAGES)  # noqa: PLR2004 - layout 2
    sandbox = ("sandbox_image",) if layout == 2 else ("pinned_images", "sandbox")  # noqa: PLR2004
    runtimes = (*runtime, "containerd", "runtimes")
    values: dict[Path, Any] = {
        (*images, *sandbox): wanted.sandbox_image,
        (*images, "registry", "config_path"): CERTS,
        (*runtime, "cni", "conf_dir"): "/etc/cni/net.d",
        **_plugin_folder(data, (*runtime, "cni")),
        (*runtime, "restrict_oom_score_adj"): wanted.restrict_oom_score_adj,
        (*runtime, "containerd", "default_runtime_name"): "nvidia" if wanted.default_nvidia else "runc",
        (*runtimes, "runc", "runtime_type"): "io.containerd.runc.v2",
        (*runtimes, "runc", "options", "SystemdCgroup"): True,
    }
    if wanted.nvidia:  # what `nvidia-ctk runtime configure` sets, and the cgroup driver on both (nvidia-docker#1788)
        values |= {
            (*runtimes, "nvidia", "runtime_type"): "io.containerd.runc.v2",
            (*runtimes, "nvidia", "privileged_without_host_devices"): False,
            (*runtimes, "nvidia", "options", "BinaryName"): NVIDIA_RUNTIME,
            (*runtimes, "nvidia", "options", "SystemdCgroup"): True,
        }
    return values


def _plugin_folder(data: Mapping[str, Any], cni: Path) -> dict[Path, Any]:
    """Give where CNI programs are: kubernetes-cni puts them into /opt/cni/bin, Debian's containerd looks elsewhere.

    Newer containerd has a list `bin_dirs` and refuses both beside each other: the one its default shows is set.
    """
    shown = _at(data, cni)
    if isinstance(shown, Mapping) and "bin_dirs" in shown:
        return {(*cni, "bin_dirs"): ["/opt/cni/bin"]}
    return {(*cni, "bin_dir"): "/opt/cni/bin"}


def rendered(default: str, wanted: Wanted) -> str:
    """Give the text of config.toml: containerd's own default with our settings; raises UnreadableError."""
    data = copy.deepcopy(parsed(default))
    data["disabled_plugins"] = [name for name in data.get("disabled_plugins", []) if "cri" not in name]
    for path, value in settings(data, wanted).items():
        table = data
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise UnreadableError(f"{part} is no table")
        table[path[-1]] = value
    # `mirrors` and `configs` may not stand beside config_path (containerd docs, cri/registry.md).
    plugin = _V2 if data["version"] == 2 else _IMAGES  # noqa: PLR2004 - layout 2
    registry = _at(data, (*plugin, "registry"))
    for old in ("mirrors", "configs", "auths"):
        registry.pop(old, None)
    return tomli_w.dumps(data)


def _at(data: Mapping[str, Any], path: Path) -> Any:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return {}
        data = data[part]
    return data


def differences(dump: str, wanted: Wanted) -> list[str]:
    """Give what an effective dump (`containerd config dump`) lacks, a short sentence each; raises UnreadableError."""
    data = parsed(dump)
    wrong = [f"{name} is disabled" for name in data.get("disabled_plugins", []) if "cri" in name]
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
    data = parsed(text)
    found = _at(data, _sandbox_path(data["version"]))
    return found if isinstance(found, str) else ""


def with_sandbox(text: str, image: str) -> str:
    """Return a configuration with another sandbox image and nothing else changed; raises UnreadableError.

    The one line is replaced where it can be found; only where there is none is the file written anew, with all of its
    values and without its comments.
    """
    wanted = copy.deepcopy(parsed(text))
    path, table = _sandbox_path(wanted["version"]), wanted
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UnreadableError(f"{part} is no table")
    table[path[-1]] = image
    line = re.compile(rf"^(\s*{path[-1]}\s*=\s*)(\"[^\"\n]*\"|'[^'\n]*')", re.MULTILINE)
    edited = line.sub(lambda found: f'{found[1]}"{image}"', text)
    return edited if tomllib.loads(edited) == wanted else tomli_w.dumps(wanted)


def hosts_toml(registry: str, mirror: str) -> str:
    """Give certs.d/REGISTRY/hosts.toml: the mirror is asked first; the registry itself stays the fallback."""
    server = "https://registry-1.docker.io" if registry == "docker.io" else f"https://{registry}"
    table = {"server": server, "host": {mirror: {"capabilities": ["pull", "resolve"]}}}
    return tomli_w.dumps(table)
