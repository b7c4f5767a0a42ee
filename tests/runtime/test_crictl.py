"""crictl is brought where a repository has it, and missed by nobody where none does."""

from __future__ import annotations

from typing import cast

import pytest

from shipway.errors import Blocked
from shipway.facts.packages import PackageInfo
from shipway.host.session import Host
from shipway.os.debian.dpkg import Package
from shipway.os.debian.packages import madison
from shipway.step import Drift
from shipway.steps.runtime.crictl import OWN, PACKAGE, CrictlInstalled
from tests.places.facts import DEBIAN, KnownFacts, said

OFFERED = madison((PACKAGE,))
SOUND = PackageInfo("1.36.0-1.1", held=False, sound=True)
HALF = PackageInfo("1.36.0-1.1", held=False, sound=False)
READY = {Package("kubeadm"): SOUND}
LISTED = said(" cri-tools | 1.36.0-1.1 | https://pkgs.k8s.io/core:/stable:/v1.36/deb  Packages\n")


@pytest.mark.parametrize(
    ("facts", "drift"),
    [
        ({Package(PACKAGE): SOUND}, None),
        ({**READY, OWN: ("crictl",)}, None),
        ({**READY, OFFERED: said("")}, None),
        ({**READY, OFFERED: said("N: Unable to locate package cri-tools\n")}, None),
        ({**READY, OFFERED: LISTED}, Drift("missing", PACKAGE)),
        ({**READY, Package(PACKAGE): HALF}, Drift("half installed", PACKAGE)),
    ],
)
async def test_it_is_wanted_only_where_it_is_missing_and_offered(
    facts: dict[object, object], drift: Drift | None
) -> None:
    assert await CrictlInstalled(DEBIAN).check(cast("Host", KnownFacts(facts))) == drift  # type: ignore[arg-type]


async def test_before_kubeadm_is_there_nothing_can_be_reported() -> None:
    with pytest.raises(Blocked, match="kubeadm"):
        await CrictlInstalled(DEBIAN).check(cast("Host", KnownFacts({})))


async def test_it_is_installed_as_the_repository_offers_it() -> None:
    host = KnownFacts({**READY, OFFERED: LISTED})
    drift = await CrictlInstalled(DEBIAN).check(cast("Host", host))
    assert drift is not None
    await CrictlInstalled(DEBIAN).apply(cast("Host", host))
    assert host.done[-1].endswith("-- cri-tools")
