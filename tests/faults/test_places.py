"""Where a controller is killed is every stage that there is: told with the other tests, not in the hour of faults."""

from __future__ import annotations

import pytest

from tests.faults.test_controllers import PLACES
from tests.faults.undisturbed import Known


@pytest.mark.long
def test_the_places_are_all_the_stages_there_are(known: Known) -> None:
    assert {place for place in known.stages if place[1] != "te3"} == set(PLACES)
