"""What NVIDIA's device plugin is configured with for a class of GPUs, and what its log says that it runs with.

The names are those of its configuration file (k8s-device-plugin, api/config/v1, 0.15 to 0.20); a name in another place
is passed over by the plugin without a word (k8s-device-plugin#1433), and so is a file that nobody mounts (#990).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shipway.cluster.parts import GpuClass

RESOURCE = "nvidia.com/gpu"
SECTIONS = {"time-slicing": "timeSlicing", "mps": "mps"}
STRATEGIES = {"mig-single": "single", "mig-mixed": "mixed"}
_LOGGED = "Running with config:"  # and the configuration as JSON, which counts (0.12 to 0.20)


def config_of(shared: GpuClass) -> dict[str, Any]:
    """Return the plugin's configuration for a class, as data."""
    config: dict[str, Any] = {"version": "v1", "flags": {"migStrategy": STRATEGIES.get(shared.sharing, "none")}}
    if section := SECTIONS.get(shared.sharing):
        # The rest of a pod that asked for two would share with itself: upstream advises to refuse it.
        resources = [{"name": RESOURCE, "replicas": shared.replicas}]
        config["sharing"] = {
            section: {"renameByDefault": shared.rename, "failRequestsGreaterThanOne": True, "resources": resources}
        }
    return config


def read_config(log: str) -> dict[str, Any]:
    """Return the newest configuration that a log has; empty where it has none that can be read."""
    _, found, after = log.rpartition(_LOGGED)
    try:
        data, _ = json.JSONDecoder().raw_decode(after[after.index("{") :] if found else "")
    except (ValueError, RecursionError):
        return {}
    sound = isinstance(data, dict) and all(isinstance(data.get(key) or {}, dict) for key in ("flags", "sharing"))
    return data if sound and all(isinstance(one or {}, dict) for one in (data.get("sharing") or {}).values()) else {}


def find_difference(shared: GpuClass, log: str) -> str:
    """Return what a plugin's log says that it runs with instead of a class; "" where that is the same, or untold."""
    live = read_config(log)
    if not live:
        return ""
    wanted = config_of(shared)
    found = [*_differing(wanted, live)]
    mine = set(wanted.get("sharing", {}))
    found += [
        f"sharing.{key} is set"
        for key, one in (live.get("sharing") or {}).items()
        if key not in mine and (one or {}).get("resources")
    ]
    return "; ".join(found)


def _differing(wanted: dict[str, Any], live: dict[str, Any], at: str = "") -> Iterator[str]:
    """Yield what of the wanted is otherwise; what is left out of a logged form has its zero value there."""
    for key, value in wanted.items():
        place, have = f"{at}{key}", live.get(key)
        if isinstance(value, dict):
            yield from _differing(value, have if isinstance(have, dict) else {}, f"{place}.")
        elif isinstance(value, list):
            rows = have if isinstance(have, list) and all(isinstance(row, dict) for row in have) else []
            if len(rows) != len(value):
                yield f"{place} has {len(rows)} entries"
            for index, (row, other) in enumerate(zip(value, rows, strict=False)):
                yield from _differing(row, other, f"{place}[{index}].")
        elif (have if have is not None else False if value is False else None) != value:
            yield f"{place} is {json.dumps(have)}"
