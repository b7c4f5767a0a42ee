"""The checks for `gpu.mode: cdi` and `dra`: containerd puts GPUs into containers by itself, from a specification.

containerd 1.6 has no CDI, 1.7 has it off and takes devices from annotations only where it was switched on; from 2.0 on
it is there by default (containerd, docs/cri/config.md; CRI's CDIDevices).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from shipway.cluster.parts import GpuMode
from shipway.edits.containerd import UnreadableError, parse_config
from shipway.errors import Blocked, Permanent
from shipway.facts.files import FileState, Listing
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Command, Host
from shipway.kube.nodes import few
from shipway.step import Drift, Impact
from shipway.steps.runtime.pause_image import DUMP
from shipway.steps.runtime.toolkit_owner import find_operators_toolkit
from shipway.survey.first_look import survey

SPECIFICATIONS = "/var/run/cdi"  # where the device plugin writes its own
_FIRST = 3  # the layout of containerd 2.0's configuration; 1.x has 2
_TABLE = ("plugins", "io.containerd.cri.v1.runtime")
WAY_OUT = (
    "Set `gpu.mode: runtime_class`, which containerd 1.x serves too, or take containerd 2.0 or later: name it in "
    "`runtime.version`, and take the host out of the cluster and in again (`remove`, then a bootstrap): packages of a "
    "host that has joined are not changed in passing."
)


def _config(dump: str) -> dict[str, Any]:
    try:
        return parse_config(dump)
    except UnreadableError:
        return {}  # said by the step about containerd's configuration


def _too_old(on: Host, mode: GpuMode) -> Permanent:
    return Permanent(
        f"containerd here is 1.x, and gpu.mode is {mode}: it would put no GPU into a container",
        host=on.name,
        code="SHW-650",
        fix=WAY_OUT,
    )


@dataclass(frozen=True)
class CdiPossible:
    """A host that has joined has a containerd that puts GPUs into containers by itself; others get one."""

    name: str = "containerd can put GPUs into containers (CDI)"
    mode: GpuMode = "cdi"

    async def check(self, on: Host) -> Drift | None:
        """Ask for its configuration's layout. Raises Permanent SHW-650 where it is that of 1.x."""
        dump = await on.read(DUMP)
        if dump.ok and _config(dump.stdout).get("version", _FIRST) < _FIRST and (await survey(on)).joined:
            raise _too_old(on, self.mode)
        return None


@dataclass(frozen=True)
class CdiServed:
    """containerd puts GPUs into containers by itself, and finds what the plugin writes and what it names.

    The driver of claims (`dra`) brings the program that its specifications name; it must find the host's driver.
    """

    name: str = "containerd puts GPUs into containers (CDI)"
    mode: GpuMode = "cdi"

    async def check(self, on: Host) -> Drift | None:
        """Look at its effective configuration, and for the program that a specification names.

        Raises Permanent SHW-650 where containerd is 1.x, SHW-651 where CDI is switched off or the program is missing,
        SHW-659 where the driver of claims would wait for the host's driver for ever.
        """
        paths = VENDOR.claims.looks_for if VENDOR.claims and self.mode == "dra" else ()
        (dump, hook), seen = await asyncio.gather(
            on.read(DUMP, FileState(VENDOR.hook)), on.read_all([FileState(path) for path in paths])
        )
        if not dump.ok:
            raise Blocked("containerd is not installed yet, or does not read its configuration", host=on.name)
        config = _config(dump.stdout)
        if config.get("version", _FIRST) < _FIRST:
            raise _too_old(on, self.mode)
        cri: Any = config
        for key in _TABLE:
            cri = cri.get(key) or {}
        wrong = "enable_cdi = false" if cri.get("enable_cdi") is False else ""
        folders = cri.get("cdi_spec_dirs")
        if isinstance(folders, list) and not {SPECIFICATIONS, SPECIFICATIONS.removeprefix("/var")} & set(folders):
            wrong = f"cdi_spec_dirs has no {SPECIFICATIONS}"
        if wrong:
            fix = "Take that line out of containerd's configuration on the host, restart containerd, then run again."
            raise Permanent(f"containerd's configuration says {wrong}", host=on.name, code="SHW-651", fix=fix)
        if hook is None and self.mode == "cdi" and not await find_operators_toolkit(on):  # that one names its own
            fix = f"Install {VENDOR.toolkit_package} 1.16 or later (`gpu.toolkit`), which brings it, then run again."
            raise Permanent(f"{VENDOR.hook} is not there", host=on.name, code="SHW-651", fix=fix)
        if paths and not any(seen):
            raise _unseen(on, paths)
        return None


def _unseen(on: Host, paths: Sequence[str]) -> Permanent:
    fix = (
        f"`ls -l {' '.join(paths)}` on the host. Where one is a link (as Debian's own packages of the driver have it), "
        "take the driver from elsewhere (`gpu.driver.source`), or set `gpu.mode: runtime_class`."
    )
    message = f"the driver of claims would not find the host's driver: none of {', '.join(paths)} is a file"
    return Permanent(message, host=on.name, code="SHW-659", fix=fix)


@dataclass(frozen=True)
class SpecificationsGone:
    """No CDI specification is left of GPUs that pods were given; the toolkit's own, and those of others, stay."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "no CDI specification of pods' GPUs is left"

    async def _left(self, on: Host) -> list[str]:
        names = await on.read(Listing(SPECIFICATIONS))
        return [f"{SPECIFICATIONS}/{name}" for name in names if name.startswith(VENDOR.specified)]

    async def check(self, on: Host) -> Drift | None:
        """List them."""
        left = await self._left(on)
        return Drift(few(left), "none") if left else None

    async def apply(self, on: Host) -> None:
        """Remove them: who wrote them has ended, and no container is left that has such a GPU."""
        await on.do(Command(("rm", "-f", "--", *await self._left(on))))
