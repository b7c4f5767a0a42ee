"""What the tests of SSH share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shipway.host.ssh import Pool
from tests.places.shell_server import Server, shell_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with shell_server(tmp_path) as one:
        yield one


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    one = Pool()
    yield one
    await one.close()
