"""The whole story in order: bare hosts, prepared hosts, failed inits, init, joins, pod network, cards, the end."""

from __future__ import annotations

from tests.conformance.case import Scene
from tests.conformance.scenes_cluster import CARDS, ENDED, INITIALISED, JOINED
from tests.conformance.scenes_hosts import BARE, PREPARED, REFUSED

SCENES: dict[str, Scene] = {
    "bare": BARE,
    "prepared": PREPARED,
    "refused": REFUSED,
    "initialised": INITIALISED,
    "joined": JOINED,
    "cards": CARDS,
    "ended": ENDED,
}
