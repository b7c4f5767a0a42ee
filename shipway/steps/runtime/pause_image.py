"""The pause image: what kubeadm on the host asks for is what containerd starts sandboxes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shipway.edits.containerd import BEFORE, CONFIG, UnreadableError, sandbox_of, with_sandbox
from shipway.edits.toml import NotEditableError
from shipway.errors import Blocked, Permanent
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.host.session import Command, Host
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.system.services import CONTAINERD

DUMP = Says(("containerd", "config", "dump"))
_NOT_RUN = (126, 127)  # not executable, not found


def wanted_images(version: str, repository: str) -> Says:
    """Return the fact of which images kubeadm on the host needs for this version (`1.36.2`) and registry."""
    asked = (f"--kubernetes-version=v{version}", f"--image-repository={repository}")
    return Says(("kubeadm", "config", "images", "list", *asked))


def pause_image(listed: Output) -> str | None:
    """Return the pause image of `kubeadm config images list`; None where kubeadm is not there or names none.

    Its stdout holds an image in each line and nothing else; warnings go to stderr.
    """
    names = (line.strip() for line in listed.stdout.splitlines())
    return next((name for name in names if listed.ok and name.rpartition("/")[2].startswith("pause:")), None)


@dataclass(frozen=True)
class SandboxImageAgrees:
    """containerd starts sandboxes from the pause image that kubeadm on this host asks for (kubeadm#2851)."""

    traps: ClassVar[tuple[int, ...]] = (19,)
    impact: ClassVar[Impact] = Impact.SERVICE  # containerd reads its configuration at its start
    restarts: ClassVar[str] = CONTAINERD
    images: Says
    name: str = "kubeadm and containerd agree on the pause image"

    async def check(self, on: Host) -> Drift | None:
        """Compare kubeadm's list with containerd's effective configuration.

        Raises Blocked where one of the two is not installed or cannot read its configuration, Permanent (SHW-462)
        where kubeadm does not name a pause image.
        """
        listed, dump = await on.read(self.images, DUMP)
        if listed.status in _NOT_RUN:
            raise Blocked("kubeadm is not installed yet", host=on.name)
        if not dump.ok:
            raise Blocked("containerd does not show its configuration yet", host=on.name)
        wanted = self._named(listed, on)
        try:
            have = sandbox_of(dump.stdout)
        except UnreadableError as error:
            raise Blocked(f"`containerd config dump`: {error}", host=on.name) from error
        return None if have == wanted else Drift(f"containerd has {have or 'none'}", f"{wanted}, as kubeadm says")

    async def apply(self, on: Host) -> None:
        """Set this one value in containerd's file, which keeps mode and owner; the first file is kept beside it."""
        listed, text, info, kept = await on.read(self.images, FileText(CONFIG), FileState(CONFIG), FileState(BEFORE))
        if text is None:
            raise Blocked(f"{CONFIG} is not written yet", host=on.name)
        wanted = self._named(listed, on)
        try:
            changed = with_sandbox(text, wanted)
        except (UnreadableError, NotEditableError) as error:
            fix = f"Correct {CONFIG} on the host (`containerd config dump` shows what is wrong), then run again."
            raise Permanent(f"{CONFIG}: {error}", host=on.name, code="SHW-308", fix=fix) from error
        if kept is None:
            await on.do(Command(("cp", "-p", "--", CONFIG, BEFORE)))
        mode, owner = (info.mode, info.owner) if info else ("644", "root:root")
        await on.write(CONFIG, changed.encode(), mode=mode, owner=owner)

    def _named(self, listed: Output, on: Host) -> str:
        """Return kubeadm's pause image; raises Permanent (SHW-462) where it names none."""
        named = pause_image(listed)
        if named is None:
            said = " ".join((listed.stderr or listed.stdout).split())[:200] or "nothing"
            message = f"kubeadm does not name a pause image (exit {listed.status}): {said}"
            fix = f"Run `{' '.join(self.images.command)}` on the host; the installed kubeadm must know that version."
            raise Permanent(message, host=on.name, code="SHW-462", fix=fix)
        return named
