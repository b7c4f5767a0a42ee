"""In which order workers have their turn: one alone first, then waves; hosts that share a job come together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

Waves = list[tuple[str, ...]]


def plan_waves(
    hosts: Sequence[str],
    *,
    size: int,
    gangs: Iterable[Collection[str]] = (),
    resumed: Collection[str] = (),
    burden: dict[str, int] | None = None,
) -> Waves:
    """Return the waves: `resumed` hosts first of all, then one alone, then at most `size` at once.

    Hosts of a gang are one wave, however many they are: an owner that loses one of its pods loses its work on all of
    them. The one alone is the one with the least `burden` (GPU jobs on it), among those of no gang where there are any.
    """
    carried = burden or {}
    by_host = {host: tuple(one for one in hosts if one in gang) for gang in gangs for host in gang if host in hosts}
    units: Waves = []
    for host in hosts:
        unit = by_host.get(host, (host,))
        if unit not in units:
            units.append(unit)
    units.sort(key=lambda unit: (not set(unit) & set(resumed), len(unit), sum(carried.get(one, 0) for one in unit)))
    waves: Waves = []
    open_for_more = False
    for unit in units:
        if open_for_more and len(waves[-1]) + len(unit) <= size:
            waves[-1] += unit
        else:
            waves.append(unit)
            open_for_more = len(waves) > 1 and len(unit) < size  # none joins the one that goes first, alone
    return waves
