"""How NVIDIA's container toolkit lets a container ask for GPUs: by the device plugin's mounts, or by a variable.

Any image can set the variable NVIDIA_VISIBLE_DEVICES, so a pod that asks Kubernetes for no GPU sees all of its host.
Nobody can make the mounts but the kubelet, and who may use hostPath. The toolkit looks at the mounts first and at the
variable then (nvidia-container-toolkit, internal/config/image/cuda_image.go, VisibleDevices, 1.17 to 1.20). It reads
its configuration at each container's start: a change restarts nothing, and reaches containers that start later.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.edits.toml import NotEditableError, with_settings
from shipway.errors import Blocked, Permanent
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.gpu.nvidia.answers import MOUNTS, VARIABLE
from shipway.host.session import Host
from shipway.step import Drift, Impact

CONFIG = "/etc/nvidia-container-runtime/config.toml"
# What counts where the file says nothing: `nvidia-ctk config` prints such keys as comments (internal/config/toml.go).
DEFAULTS = {MOUNTS: False, VARIABLE: True}
EFFECTIVE = Says(("nvidia-ctk", "config"))
_NOT_THERE = (126, 127)

Hold = Callable[[str], Awaitable[str]]


async def toolkit_accepts(on: Host, key: str) -> bool:
    """Return whether the toolkit of a host accepts the device list in this way (`MOUNTS` or `VARIABLE`).

    Raises Blocked while there is no toolkit, Permanent SHW-618 where it cannot read its configuration.
    """
    said = await on.read(EFFECTIVE)
    if said.status in _NOT_THERE:
        raise Blocked("NVIDIA's container toolkit is not installed yet", host=on.name)
    fault = "" if said.ok else (said.stderr or said.stdout).strip()[:200]
    try:
        data = tomllib.loads(said.stdout)
    except tomllib.TOMLDecodeError as error:
        data, fault = {}, fault or str(error)
    if fault:
        fix = f"Correct {CONFIG} on the host (`nvidia-ctk config` must print it), then run again."
        raise Permanent(
            f"NVIDIA's toolkit cannot read its configuration: {fault}", host=on.name, code="SHW-618", fix=fix
        )
    return bool(data.get(key, DEFAULTS[key]))


@dataclass(frozen=True)
class ToolkitAccepts:
    """The toolkit accepts the device list in one way, or does not; other settings of its file stay as they are.

    `hold` tells of a host why the setting may not be changed yet, "" where nothing keeps from it.
    """

    impact: ClassVar[Impact] = Impact.FILES
    traps: ClassVar[tuple[int, ...]] = (27,)
    key: str
    accepts: bool
    name: str
    why_not: Hold | None = field(default=None, hash=False, compare=False)

    async def check(self, on: Host) -> Drift | None:
        """Ask the toolkit what counts; the drift says what keeps from changing it."""
        have = await toolkit_accepts(on, self.key)
        if have == self.accepts:
            return None
        return Drift.held(f"{self.key} = {str(have).lower()}", str(self.accepts).lower(), await self.hold(on))

    async def hold(self, on: Host) -> str:
        """Return why it may not be changed now."""
        return await self.why_not(on.name) if self.why_not else ""

    async def apply(self, on: Host) -> None:
        """Set the key in the toolkit's file. Raises Permanent SHW-618 where that cannot be done without more."""
        text, info = await asyncio.gather(on.read(FileText(CONFIG)), on.read(FileState(CONFIG)))
        try:
            edited = with_settings(text or "", {(self.key,): self.accepts})
        except NotEditableError as error:
            fix = f"Set `{self.key} = {str(self.accepts).lower()}` at the top of {CONFIG} on the host, then run again."
            message = f"{CONFIG} is left as it is, for it cannot be edited safely: {error}"
            raise Permanent(message, host=on.name, code="SHW-618", fix=fix) from error
        mode, owner = (info.mode, info.owner) if info else ("644", "root:root")
        await on.write(CONFIG, edited.encode(), mode=mode, owner=owner)
