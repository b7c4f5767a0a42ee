"""The whole story in order: bare hosts, prepared ones, apt, failed inits, init, joins, pod network, GPUs, the end."""

from __future__ import annotations

from tests.conformance.case import Scene
from tests.conformance.scenes.cluster import ENDED, GPUS, INITIALISED, JOINED
from tests.conformance.scenes.hosts import BARE, PREPARED, REFUSED
from tests.conformance.scenes.machine import FILES, MACHINE, SOURCES

SCENES: dict[str, Scene] = {
    "bare": BARE,
    "files": FILES,
    "machine": MACHINE,
    "prepared": PREPARED,
    "sources": SOURCES,
    "refused": REFUSED,
    "initialised": INITIALISED,
    "joined": JOINED,
    "gpus": GPUS,
    "ended": ENDED,
}
