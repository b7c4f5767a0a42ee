"""The fact of which parts of the control plane run on a host, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.foreign.numbers import whole
from shipway.script import Output

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# The kernel keeps 15 characters of a program's name. An etcd that has nothing below /etc/kubernetes is another one.
_NAMES = ",".join((*PARTS, *(part[:15] for part in PARTS if len(part) > 15)))  # noqa: PLR2004
_OWN = "/etc/kubernetes/"


@dataclass(frozen=True, slots=True)
class Running:
    """When each part of the control plane that runs was started, and the host's clock: seconds since 1970."""

    now: int
    since: Mapping[str, int]


@dataclass(frozen=True)
class StaticPodsRunning(Fact[Running]):
    """Which of the four static pods run; only a part's name and age leave the host."""

    def words(self) -> Words:
        """Ask ps(1) for ages and command lines, and cut the latter on the host."""
        cut = f'$2 ~ /(etcd|kube-[a-z-]+)$/ && index($0, "{_OWN}") {{ n = split($2, p, "/"); print $1, p[n] }}'
        ask = f"date +now=%s && {{ ps -ww -o etimes= -o args= -C {_NAMES} || true; }} | awk '{cut}'"
        return ("sh", "-c", ask)

    def parse(self, output: Output) -> Running:
        """Return the oldest process of each part; nothing runs where nothing is said."""
        now, since = 0, dict[str, int]()
        for line in output.stdout.splitlines():
            age, _, part = line.partition(" ")
            if line.startswith("now="):
                now = whole(line.removeprefix("now=")) or 0
            elif (seconds := whole(age)) is not None and part in PARTS:
                since[part] = min(since.get(part, now), now - seconds)
        return Running(now, since)


@dataclass(frozen=True)
class StaticPodFlags(Fact[Mapping[str, str] | None]):
    """The flags that a running part of the control plane was started with; None where it does not run.

    Flags of these programs hold names of files, and no secret.
    """

    part: str

    def words(self) -> Words:
        """Ask ps(1) for its command line; one of that name with nothing below /etc/kubernetes is another."""
        cut = f'$1 ~ /(^|\\/){self.part}$/ && index($0, "{_OWN}")'
        return ("sh", "-c", f"ps -ww -o args= -C {self.part[:15]} | awk '{cut}'")

    def parse(self, output: Output) -> Mapping[str, str] | None:
        """Return the flags of the first."""
        lines = output.stdout.splitlines()
        if not lines:
            return None
        pairs = (word[2:].partition("=") for word in lines[0].split()[1:] if word.startswith("--"))
        return {name: value if equals else "true" for name, equals, value in pairs}
