"""What tests of several files share; it imports Prefect only for those that ask for it."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from flows.prefect_api.local import QUIET

if TYPE_CHECKING:
    from tests.drift.scene import Scene
    from tests.flows.story import Story
    from tests.places.prefect import Place


FLOWS_RUN_BY = {"prefect_place", "prefect_server"}  # whoever has one of these may run flows in the tests' own process
settings.register_profile("patient", deadline=None)  # how long an example takes says only how busy the machine is
settings.load_profile("patient")
# As in a run, Prefect's lines stay in its history: to write them to a console takes a fifth of what its client takes.
os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})


@pytest.fixture(scope="session")
def prefect_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Yield a running Prefect API with a database of its own; it takes seconds to start, so there is one."""
    from tests.places.prefect import api_in  # noqa: PLC0415 - see above

    with api_in(tmp_path_factory.mktemp("prefect")) as place:
        gc.collect()
        gc.freeze()  # what of Prefect was imported just now, too: `_swept` took a fifth of a second a test for it
        yield place


@pytest.fixture(scope="session")
def story(prefect_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Yield four runs on one simulated lab, and the lab."""
    from tests.flows.story import heard  # noqa: PLC0415 - see above

    with heard(prefect_place, tmp_path_factory.mktemp("reports")) as story:
        yield story


@pytest.fixture(scope="session")
def scene(prefect_place: Place) -> Iterator[Scene]:
    """Yield a bootstrapped simulated cluster that things drift on; its tests are of the group "drift"."""
    from tests.drift.scene import staged  # noqa: PLC0415 - see above

    with staged(prefect_place) as made:
        yield made


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what was imported and collected out of every later collection of garbage: it lives until the end.

    Raises UsageError where workers share a group of tests: each would set up what the group shares (pytest 9.2 made
    the group's name, which pytest-xdist 3.8 puts at the end of a test's, have no effect; nothing failed by it).
    """
    if session.config.getoption("loadgroup", default=False):
        apart = [one for one in session.items if one.get_closest_marker("xdist_group") and "@" not in one.nodeid]
        if apart:
            raise pytest.UsageError(f"pytest-xdist does not keep groups together: {apart[0].nodeid}")
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before those are left out that were not asked for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that may run flows in this process: they end beside what Prefect's client leaves.

    That is sockets, to the collector, at the end of each loop (measured with Prefect 3.8). A fixture that runs flows
    may be set up for any of its tests. Those of `prefect_place` are long; the container lab's have marks of their own.
    """
    left = pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning")
    for item in items:
        names = getattr(item, "fixturenames", ())
        if not FLOWS_RUN_BY.isdisjoint(names):
            item.add_marker(left)
        if "prefect_place" in names:
            item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def _swept(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what Prefect's client leaves while its own test still stands, not in a later test of something else."""
    yield
    if not FLOWS_RUN_BY.isdisjoint(request.fixturenames):  # by whatever other fixture
        gc.collect()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail in CI for a test that was skipped, unless it is written down to be run elsewhere: CI has what tests need.

    Without root some of them cannot run, and CI says so itself.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    here = os.environ.get("CI") == "true" and os.geteuid() == 0 and not os.environ.get("SHIPWAY_NOT_RUN")
    if here and reporter is not None and reporter.getreports("skipped") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def name_alone(nodeid: str) -> str:
    """Return the test's name as pytest takes it on its command line: pytest-xdist has put "@" and the group behind it.

    The group is what stands behind the last "@" after the last "]" (pytest-xdist 3.8, scheduler/loadgroup.py).
    """
    return nodeid[: nodeid.rfind("@")] if nodeid.rfind("@") > nodeid.rfind("]") else nodeid


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud what could not be tested here; a number of skipped tests alone is read as passed."""
    skipped = terminalreporter.getreports("skipped")
    path = os.environ.get("SHIPWAY_NOT_RUN")  # CI runs them where there is what they need
    if path and not hasattr(terminalreporter.config, "workerinput"):  # pytest-xdist's workers come by here as well
        with Path(path).open("a", encoding="utf-8") as names:  # `make test` and `make test-long` write to one file
            names.writelines(f"{name_alone(report.nodeid)}\n" for report in skipped)
    missing: list[str] = [report.longrepr[2] for report in skipped]
    for why, count in sorted(Counter(missing).items()):
        terminalreporter.write_line(f"NOT RUN: {count} tests. {why}", yellow=True)
