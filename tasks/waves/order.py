"""In which order workers have their turn: one alone first, then waves; hosts that share a job come together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

Waves = list[tuple[str, ...]]


def plan_waves(
    hosts: Sequence[str],
    *,
    size: int,
    gangs: Iterable[Collection[str]] = (),
    resumed: Collection[str] = (),
    burden: dict[str, int] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Waves:
    """Return the waves: `resumed` hosts first of all, then one alone of each of the `kinds`, then `size` at once.

    Hosts of a gang are one wave, however many they are: an owner that loses one of its pods loses its work on all of
    them. The one alone is the one with the least `burden` (GPU jobs on it), among those of no gang where there are any.
    """
    carried, kind_of = burden or {}, kinds or {}
    by_host = {host: tuple(one for one in hosts if one in gang) for gang in gangs for host in gang if host in hosts}
    units: Waves = []
    for host in hosts:
        unit = by_host.get(host, (host,))
        if unit not in units:
            units.append(unit)
    units.sort(key=lambda unit: (not set(unit) & set(resumed), len(unit), sum(carried.get(one, 0) for one in unit)))
    waves: Waves = []
    for unit in units:
        if count_alone([*waves, unit], kind_of) > len(waves):
            waves.append(unit)
    alone = len(waves)
    for unit in units:
        if unit in waves[:alone]:
            continue
        if len(waves) > alone and len(waves[-1]) + len(unit) <= size:
            waves[-1] += unit
        else:
            waves.append(unit)
    return waves


def count_alone(waves: Sequence[Sequence[str]], kinds: Mapping[str, str]) -> int:
    """Return how many waves come alone, before all others: each of them has the first host of a kind."""
    seen = set[str]()
    for number, wave in enumerate(waves):
        new = {kinds.get(host, "") for host in wave} - seen
        if not new:
            return number
        seen |= new
    return len(waves)
