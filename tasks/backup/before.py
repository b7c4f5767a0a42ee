"""Before etcd's members, or the way to them, change: a verified backup of the last hour, where any are declared."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from shipway.backup.script import script_of
from shipway.errors import Refused, ShipwayError
from shipway.kube.status import made_at
from shipway.step import Drift
from shipway.steps.upgrade.possible import BackupYoung
from tasks.context import Run
from tasks.leading import known

YOUNG = timedelta(hours=BackupYoung.hours)
FIX = "Run `shipway backup {file}` first, then the same command again."


class BackupBefore:
    """A verified backup of the last hour is on a control plane's host; where the file declares none, that is said.

    A cluster that is younger than such a backup may be has lost no more without one.
    """

    name = BackupYoung.name

    def __init__(self, run: Run, what: str, *, besides: Collection[str] = ()) -> None:
        """`what` is a sentence of what will be done; `besides` are hosts whose disks are gone."""
        self._run, self._what, self._besides = run, what, besides

    async def check(self, on: object) -> Drift | None:
        """Ask each control plane that is known to be whole. Raises Refused SHW-789 where none has such a backup."""
        del on
        run = self._run
        if await self._is_new():
            return None
        if not run.cluster.backup.declared:
            said = f"{self._what}, and the file declares no backups: `shipway backup {run.file or 'FILE'}` takes one"
            run.warned += [said] if said not in run.warned else []
            return None
        whole = [name for name, one in known(run).items() if one.whole and name not in self._besides]
        hosts = list(dict.fromkeys([run.control.name, *whole]))
        found = await asyncio.gather(*map(self._ask, hosts))
        if "" in found:
            return None
        message = f"{self._what}, and no control plane has a verified backup of the last hour ({'; '.join(found)})"
        fix = FIX.format(file=run.file or "FILE")
        raise Refused(message, host=run.control.name, code="SHW-789", fix=fix)

    async def _ask(self, host: str) -> str:
        """Return what a host lacks, "" where it has one; one that cannot be asked is no witness."""
        try:
            await BackupYoung(script_of(self._run.cluster)).check(self._run.session(host))
        except ShipwayError as error:
            return f"{host}: {error.message}"
        return ""

    async def _is_new(self) -> bool:
        """Say whether the cluster is younger than a backup may be, by when its own namespace was made."""
        lead = known(self._run).get(self._run.control.name)
        if lead is not None and not lead.whole:
            return True  # it is made by this run
        space = await (await self._run.kube()).get("v1", "Namespace", "kube-system")
        return space is not None and datetime.now(UTC) - made_at(space["metadata"]) < YOUNG
