"""The pods that run on a host, told by the host where no API answers: since when, and what devices they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.foreign.numbers import whole
from shipway.host.session import Host
from shipway.known_failures.catalogue import failure

# The kubelet makes /var/log/pods/NAMESPACE_NAME_UID when it starts a pod, and keeps it over restarts of the host. A
# static pod has no UUID there, and is left out. Which of them run the cgroups of processes tell (`pod` and the
# UID, with underscores by the systemd driver); where none does (a host that is itself a container) all are told.
_UID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_STARTED = (
    f'runs=$(sed "s/_/-/g" /proc/[0-9]*/cgroup 2>/dev/null | grep -oE "pod{_UID}" | sort -u)\n'
    "for dir in /var/log/pods/*_*_*-*-*-*-*; do\n"
    '  [ -d "$dir" ] || continue\n'
    '  case $runs in "" | *"pod${dir##*_}"*) ;; *) continue ;; esac\n'
    '  born=$(stat -c %W "$dir"); [ "$born" -gt 0 ] 2>/dev/null || born=$(stat -c %Y "$dir")\n'
    '  printf "%s %s\\n" "$born" "${dir##*/}"\n'
    "done"
)
STARTED_PODS = Says(("sh", "-c", _STARTED), 60)
# The kubelet's own notes of who has which device (kubelet, cm/devicemanager/checkpoint and cm/dra/state).
DEVICES = FileText("/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint")
CLAIMS = FileText("/var/lib/kubelet/dra_manager_state")
_LINE = re.compile(rf"([0-9]{{1,10}}) ([a-z0-9-]+)_([a-z0-9.-]+)_({_UID})")


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod on a host: namespace/name, when its kubelet began it by the host's clock, and the devices that it holds."""

    name: str
    since: datetime
    devices: str = ""

    @property
    def said(self) -> str:
        """The pod in a few words."""
        return f"{self.name} ({self.devices})" if self.devices else self.name


async def started_pods(on: Host) -> list[LocalPod]:
    """Return the pods that run on a host, those that hold devices first. Raises the errors of asking it."""
    listed, devices, claims = await on.read(STARTED_PODS, DEVICES, CLAIMS)
    if not listed.ok:
        raise failure("look for running pods", listed, host=on.name)
    held, found = held_devices(devices or ""), []
    for match in filter(None, map(_LINE.fullmatch, listed.stdout.splitlines())):
        born, space, name, uid = match.groups()
        claimed = "claimed devices" if uid in (claims or "") else ""
        since = datetime.fromtimestamp(whole(born) or 0, UTC)
        found.append(LocalPod(f"{space}/{name}", since, ", ".join(filter(None, (held.get(uid, ""), claimed)))))
    return sorted(found, key=lambda pod: (not pod.devices, pod.name))


def held_devices(text: str) -> Mapping[str, str]:
    """Return by a pod's UID what its containers hold, from the kubelet's notes; nothing for what is none of those."""
    counts: dict[str, dict[str, int]] = {}
    try:
        for one in json.loads(text)["Data"]["PodDeviceEntries"] or ():
            ids = one["DeviceIDs"]
            number = sum(map(len, ids.values())) if isinstance(ids, dict) else len(ids)  # a list until 1.19
            of = counts.setdefault(str(one["PodUID"]), {})
            of[str(one["ResourceName"])] = of.get(str(one["ResourceName"]), 0) + number
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {uid: ", ".join(f"{name}: {count}" for name, count in of.items()) for uid, of in counts.items()}
