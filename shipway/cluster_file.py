"""Cluster files: read from YAML, laid over a profile's values, judged, and refused with every fault at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shipway.cluster.faults import Fault, pydantic_faults, refusal
from shipway.cluster.model import Cluster
from shipway.cluster.profiles import DEFAULT_PROFILE, merge, mirror_data, profile_data
from shipway.cluster.repair import mend
from shipway.cluster.text import CODE, LARGEST, source
from shipway.errors import Refused
from shipway.foreign.errors import describe_error
from shipway.rules.solver import missing_files, refusals

# Mending one fault can show another behind it (a rule of a section is asked when its values are right).
MENDINGS = 4


def load_cluster(path: Path) -> Cluster:
    """Read a cluster file; raises Refused with all faults and their places, files that it names and lacks too.

    A text that was fine is parsed once: a command, its run's name and the run itself read the same file. Whether the
    files that it names are there is looked at each time.
    """
    where = str(path)
    try:
        if path.stat().st_size > LARGEST:
            message = f"{where}: {path.stat().st_size} bytes are more than the {LARGEST} a cluster file may have"
            raise Refused(message, code=CODE)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"cluster file {where} cannot be read: {describe_error(error)}"
        raise Refused(message, code=CODE, fix="Name a file that is there: a cluster file in UTF-8.") from error
    folder = path.resolve().parent
    cluster = _parse_once(text, where, folder)
    if any(True for _ in missing_files(cluster)):  # since it was parsed
        return parse_cluster(text, where=where, folder=folder, files=True)  # refuses it, and says where
    return cluster


@lru_cache(maxsize=1)
def _parse_once(text: str, where: str, folder: Path) -> Cluster:
    """Return the cluster of a text that has no fault; raises Refused with all faults, and is asked again then."""
    return parse_cluster(text, where=where, folder=folder, files=True)


def parse_cluster(
    text: str, *, where: str = "cluster file", folder: Path | None = None, files: bool = False
) -> Cluster:
    """Read a cluster file's text; raises Refused with all faults, those of values and those of what cannot work.

    Relative paths are resolved against `folder`; `files` asks that the local files it names are there.
    """
    read = source(text, where)
    faults = [Fault(path, f"stands twice; again in line {line}") for path, line in read.twice]
    given = {key: value for key, value in read.data.items() if value is not None}
    try:
        base = profile_data(given.get("profile", DEFAULT_PROFILE))
    except Refused as error:
        base = profile_data(DEFAULT_PROFILE)
        faults.append(Fault(("profile",), error.message.removeprefix("profile: ")))
        given.pop("profile")
    base = merge(base, mirror_data(given.get("mirrors")))
    cluster, wrong = _validate(merge(base, given), base, {"folder": folder} if folder else {})
    faults += wrong
    if cluster is not None:
        bad = [fault.path for fault in faults]
        judged = [*refusals(cluster), *(missing_files(cluster) if files else ())]
        faults += [fault for fault in judged if not _rests_on(fault, bad)]
    if faults or cluster is None:
        raise refusal(read, base, faults)
    return cluster


def in_version(cluster: Cluster, version: str) -> Cluster:
    """Return a cluster in another version of Kubernetes; raises Refused where that is none, or cannot work with it."""
    kubernetes = {**cluster.kubernetes.model_dump(), "version": version}
    try:
        changed = cluster.model_copy(update={"kubernetes": type(cluster.kubernetes).model_validate(kubernetes)})
    except ValidationError as error:
        message = f"{version!r} is no version of Kubernetes"
        raise Refused(message, code=CODE, fix="Name one in full, as 1.36.2.") from error
    wrong = [fault.message for fault in refusals(changed)]
    if wrong:
        fix = "Name another version, or change what does not fit in the cluster file."
        raise Refused(f"Kubernetes {version} does not fit: {'; '.join(wrong)}", code=CODE, fix=fix)
    return changed


def _validate(
    data: dict[str, Any], base: Mapping[str, Any], context: Mapping[str, Any]
) -> tuple[Cluster | None, list[Fault]]:
    """Return the cluster and the faults of its values; with faults it is one mended for further judging, or None."""
    faults: list[Fault] = []
    for _ in range(MENDINGS):
        try:
            return Cluster.model_validate(data, context=dict(context)), faults
        except ValidationError as error:
            mended = [fault.path for fault in faults]
            found = pydantic_faults(error, Cluster, data)
            faults += [fault for fault in found if not _rests_on(fault, mended)]
            data = mend(data, base, [fault.path for fault in found])
    return None, faults


def _rests_on(fault: Fault, bad: Sequence[tuple[str | int, ...]]) -> bool:
    """Tell whether a fault comes from a value that is itself a fault: it may be none once that is corrected."""
    return any(path[: len(one)] == one for path in (fault.path, *fault.also) for one in bad)
