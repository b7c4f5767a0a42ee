"""containerd on a simulated host: its three configuration layouts, how files and drop-ins make the effective one."""

from __future__ import annotations

import copy
import posixpath
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from lab.simulated import recorded
from lab.simulated.files import FileTree
from lab.simulated.versions import compare

CONFIG = "/etc/containerd/config.toml"
Table = dict[str, Any]
CRI2, RUNTIME, IMAGES = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"


class BadConfig(Exception):
    """containerd does not take its configuration; the text is what it says."""


def layout(version: str) -> int:
    """Return the configuration version that a release of containerd writes: 2 in 1.x, 3 from 2.0, 4 from 2.3."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if major < 2:
        return 2
    return 3 if minor < 3 else 4


def default(version: str) -> Table:
    """Return `containerd config default` as data, with the parts that a cluster's set-up meets."""
    return copy.deepcopy(_default(version))


@lru_cache(maxsize=16)
def _default(version: str) -> Table:
    data: Table = tomllib.loads(recorded.text("containerd1.toml" if layout(version) == 2 else "containerd2.toml"))
    data["version"] = layout(version)
    if version.startswith("1.6"):
        data["plugins"][CRI2]["sandbox_image"] = "registry.k8s.io/pause:3.6"
    if compare(version, "2.2") < 0:
        data["imports"] = []
    if layout(version) > 2 and compare(version, "2.1") < 0:
        cni = data["plugins"][RUNTIME]["cni"]
        cni["bin_dir"] = cni.pop("bin_dirs")[0]
    return data


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """Return `base` with `over` put over it, table by table."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def load(files: FileTree, path: str, version: str) -> Table:
    """Return one configuration file as data in the daemon's own layout; raises BadConfig."""
    text = files.text(path)
    try:
        data: Table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"containerd: failed to load TOML: {path}: {error}") from error
    own, said = layout(version), data.get("version", layout(version))
    if not isinstance(said, int) or said > own:
        raise BadConfig(f"containerd: failed to load TOML from {path}: unsupported config version `{said}`")
    if said == 2 and own > 2:
        data = _migrated(data)
    data["version"] = own
    return data


def _migrated(data: Table) -> Table:
    """Return a layout 2 file in the shape of layouts 3 and 4, as containerd 2 does when it starts."""
    data = copy.deepcopy(data)
    plugins: Table = data.setdefault("plugins", {})
    old: Table = plugins.pop(CRI2, {})
    images: Table = plugins.setdefault(IMAGES, {})
    if "sandbox_image" in old:
        images.setdefault("pinned_images", {})["sandbox"] = old.pop("sandbox_image")
    for key in ("registry", "snapshotter"):
        if key in old:
            images[key] = old.pop(key)
    if "bin_dir" in (cni := old.get("cni", {})):  # an empty one too: containerd 2.1.9 then looks nowhere for CNI
        cni["bin_dirs"] = [cni.pop("bin_dir")]
    plugins[RUNTIME] = merged(plugins.get(RUNTIME, {}), old)
    data["disabled_plugins"] = [name.replace(CRI2, RUNTIME) for name in data.get("disabled_plugins", [])]
    return data


def effective(files: FileTree, version: str) -> Table:
    """Return what `containerd config dump` shows: defaults, the file, and the drop-ins it imports; raises BadConfig."""
    if files.read(CONFIG) is None:
        return default(version)
    data = load(files, CONFIG, version)
    for pattern in data.get("imports", []):
        for path in _glob(files, str(pattern)):
            extra = load(files, path, version)
            if compare(version, "2.1") < 0:  # a plugin's whole table is replaced, not merged (containerd#5837)
                extra["plugins"] = {**data.get("plugins", {}), **extra.get("plugins", {})}
                data = {**data, **extra, "imports": data["imports"]}
            else:
                data = merged(data, {key: value for key, value in extra.items() if key != "imports"})
    if layout(version) == 2:  # the dump names every file it was made of
        data["imports"] = [CONFIG, *data.get("imports", [])]
    whole = merged(default(version), data)
    if layout(version) == 2:  # containerd 1.x takes a runtime's own options for all of them; 2.x lays them over its own
        for name, runtime in runtimes(data).items():
            if "options" in runtime:
                runtimes(whole)[name]["options"] = runtime["options"]
    return whole


def _glob(files: FileTree, pattern: str) -> list[str]:
    folder, name = posixpath.split(pattern)
    return [f"{folder}/{found}" for found in files.names(folder) or () if fnmatchcase(found, name)]


def cri_loaded(config: Mapping[str, Any]) -> bool:
    """Say whether this configuration leaves the CRI plugin on."""
    return not any("cri" in str(name) for name in config.get("disabled_plugins", []))


def _cri(config: Mapping[str, Any]) -> Table:
    plugins = config.get("plugins", {})
    found: Table = plugins.get(CRI2) or plugins.get(RUNTIME) or {}
    return found


def runtimes(config: Mapping[str, Any]) -> dict[str, Table]:
    """Return the runtimes by name."""
    found: dict[str, Table] = _cri(config).get("containerd", {}).get("runtimes", {})
    return found


def default_runtime(config: Mapping[str, Any]) -> str:
    """Return the default runtime's name."""
    return str(_cri(config).get("containerd", {}).get("default_runtime_name", "runc"))
