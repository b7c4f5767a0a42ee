"""The steps that divide a host's GPUs by the hardware: MIG, by NVIDIA's own mig-parted.

Its package (nvidia-mig-manager) brings the program, a file of layouts that it makes from the GPUs at each boot, and
hooks: used with them, what is applied is applied again after a reboot (mig-parted, deployments/systemd/README.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import Blocked, CommandFailed, Permanent
from shipway.facts.commands import Watched
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.gpu.health.nvidia.report import read_gpus
from shipway.gpu.nvidia.answers import REPORT
from shipway.host.session import Command, Host
from shipway.redact import tail
from shipway.script import Output
from shipway.step import Drift, Impact

PROGRAM = "nvidia-mig-parted"
LAYOUTS, HOOKS = "/etc/nvidia-mig-manager/config.yaml", "/etc/nvidia-mig-manager/hooks.yaml"
REFRESH = "nvidia-cdi-refresh.service"
WHOLE = "all-disabled"  # in every file of layouts that mig-parted makes (pkg/mig/builder)
MARK = "/var/lib/shipway/gpus-divided"  # the layout that Shipway has applied: what somebody else has divided stays so
CLIENTS = Watched(("nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader"))
APPLY_SECONDS = 600  # it stops and starts services, and resets GPUs
_NOT_THERE = (126, 127)
_MODE = ("MIG Mode", "Current")
_PENDING = ("MIG Mode", "Pending")


def _modes(report: str, row: tuple[str, str]) -> list[str]:
    return [values.get(row, "") for values in read_gpus(report).gpus.values()]


def _tells(report: Output) -> bool:
    """Say whether the driver tells how its GPUs are divided, and nobody else in its name."""
    return report.ok and not read_gpus(report.stdout).forged


def _refuse_without(on: Host, modes: list[str]) -> None:
    """Raise Permanent SHW-654 where GPUs have no such mode: mig-parted passes over them, and says that it is done."""
    cannot = [mode for mode in modes if mode not in {"Enabled", "Disabled"}]
    if cannot:
        fix = "Give the host another class (`hosts[].gpu_class`): exclusive, time-slicing or mps."
        message = f"{len(cannot)} of {len(modes)} GPUs have no MIG, and its class divides them"
        raise Permanent(message, host=on.name, code="SHW-654", fix=fix)


@dataclass(frozen=True)
class MigPossible:
    """Every GPU of a host can be divided: its driver tells of a mode, and not that there is none."""

    name: str = "the GPUs can be divided (MIG)"

    async def check(self, on: Host) -> Drift | None:
        """Ask the driver; one that does not answer has said so elsewhere. Raises Permanent SHW-654."""
        said = await on.read(REPORT)
        _refuse_without(on, _modes(said.stdout, _MODE) if _tells(said) else [])
        return None


@dataclass(frozen=True)
class GpusDivided:
    """The GPUs are divided as a layout of mig-parted's file says; that is changed only while nobody computes on one."""

    impact: ClassVar[Impact] = Impact.WORKLOADS  # GPUs are reset, and services stopped: on a drained host alone
    layout: str

    @property
    def id(self) -> str:
        """What it is about, whatever the layout."""
        return "GpusDivided"

    @property
    def name(self) -> str:
        """The layout."""
        return f"the GPUs are divided as {self.layout}"

    def _words(self, act: str) -> tuple[str, ...]:
        return (PROGRAM, act, "-f", LAYOUTS, "-c", self.layout)

    async def check(self, on: Host) -> Drift | None:
        """Let mig-parted compare.

        Raises Permanent SHW-655 where it is not there, or does not know the layout, SHW-654 where a GPU has no MIG;
        Blocked where the driver does not answer: mig-parted calls that a difference too.
        """
        said, report = await on.read(Watched(self._words("assert"), seconds=60), REPORT)
        if said.status in _NOT_THERE:
            fix = "Install NVIDIA's package nvidia-mig-manager on the host (no repository here has it), then run again."
            raise Permanent(f"{PROGRAM} is not there", host=on.name, code="SHW-655", fix=fix)
        if said.ok:
            return None
        text = said.stdout + said.stderr
        if "read error" in text:  # the package makes the file at the next boot, not when it is installed (its rules)
            fix = f"`{PROGRAM} generate-config -f {LAYOUTS}` on the host makes it from the GPUs, then run again."
            raise Permanent(f"there is no {LAYOUTS} that can be read", host=on.name, code="SHW-655", fix=fix)
        if "Assertion failure" not in text:  # its word for GPUs that are otherwise (assert.go)
            fix = f"See {LAYOUTS} on the host; name one of its layouts in `gpu.classes.NAME.mig`, then run again."
            logged = re.findall(r'level=fatal msg="(.*)"', text)  # behind warnings of the bus, as an H200 said it
            message = f"{PROGRAM} does not take {self.layout}: {logged[-1] if logged else tail(text, 2)}"
            raise Permanent(message, host=on.name, code="SHW-655", fix=fix)
        if not _tells(report):
            raise Blocked("the driver does not tell how the GPUs are divided", host=on.name)
        _refuse_without(on, _modes(report.stdout, _MODE))
        modes, pending = (sorted(set(_modes(report.stdout, row))) for row in (_MODE, _PENDING))
        if pending != modes:
            return Drift(f"the mode {', '.join(pending)} waits for a restart of the host", self.layout)
        return Drift(f"otherwise (MIG is {', '.join(modes)})", self.layout)

    async def hold(self, on: Host) -> str:
        """Return what computes on a GPU of the host, or that nobody can tell; "" where nothing does."""
        said = await on.read(CLIENTS)
        if not said.ok:
            return f"it cannot be told what computes there (status {said.status}: {tail(said.stdout + said.stderr, 1)})"
        lines = [line.strip() for line in said.stdout.splitlines() if re.match(r"\s*[0-9]+,", line)]
        return f"{len(lines)} processes compute there ({lines[0]})" if lines else ""

    async def apply(self, on: Host) -> None:
        """Divide them, with the package's hooks, and have the toolkit's CDI file written anew: it does not follow MIG.

        Raises Blocked where the mode only changes with a restart of the host, as in a guest without a reset.
        """
        if self.layout != WHOLE:
            await on.write(MARK, f"{self.layout}\n".encode())
        failed: CommandFailed | None = None
        try:
            await on.do(Command((*self._words("apply"), "-k", HOOKS), seconds=APPLY_SECONDS))
        except CommandFailed as error:  # a reset that is not possible ends it, and leaves the mode pending (mode.go)
            failed = error
        on.forget()
        report, refresh = await on.read(REPORT, UnitState(REFRESH))
        if _tells(report) and _modes(report.stdout, _MODE) != _modes(report.stdout, _PENDING):
            fix = (
                "Restart the host, one in service by `shipway maintain FILE`, which drains it first; then run again: a "
                "mode is pending."
            )
            raise Blocked("the mode of MIG changes with the next restart of the host", host=on.name, fix=fix)
        if failed:
            raise failed
        if refresh.load == "loaded":
            await on.do(Command(("systemctl", "start", REFRESH)))


async def why_restart_for_mode(on: Host, step: GpusDivided) -> list[str]:
    """Return why a host is restarted for its GPUs: a mode of MIG is pending that Shipway has asked for.

    Its mark says so, together with what is declared: a mode that somebody else has left pending is no reason, nor is a
    driver that does not tell.
    """
    mark, report = await on.read(FileText(MARK), REPORT)
    if mark is None or step.layout not in (WHOLE, mark.strip()) or not _tells(report):
        return []
    want = "Disabled" if step.layout == WHOLE else "Enabled"
    modes = zip(_modes(report.stdout, _MODE), _modes(report.stdout, _PENDING), strict=True)
    count = sum(later == want and now in {"Enabled", "Disabled"} - {want} for now, later in modes)
    return [f"MIG is pending on {count} GPUs ({want})"] if count else []


@dataclass(frozen=True)
class GpusWhole(GpusDivided):
    """No GPU is divided any more that Shipway has divided; what somebody else has divided is left so."""

    layout: str = WHOLE

    @property
    def id(self) -> str:
        """What it is about."""
        return "GpusWhole"

    @property
    def name(self) -> str:
        """The fact."""
        return "the GPUs that Shipway has divided are whole again"

    async def check(self, on: Host) -> Drift | None:
        """Look for Shipway's mark. Raises as the other does where there is one."""
        mark = await on.read(FileText(MARK))
        if mark is None:
            return None
        otherwise = await super().check(on)
        return otherwise or Drift(f"whole, and {mark.strip()} would be applied again at the next boot", self.layout)

    async def apply(self, on: Host) -> None:
        """Have them whole again, at each boot as well, and forget that they were divided. Raises as the other does."""
        await super().apply(on)
        await on.do(Command(("rm", "-f", "--", MARK)))
