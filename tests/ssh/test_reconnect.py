"""A run that asked for the API of a control plane that is then made anew connects to the new one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shipway.cluster_file import parse_cluster
from tasks.context import Run

CLUSTER = "name: c\nprofile: current\nhosts: [{name: cp1, address: 192.0.2.11}]\n"


class Api:
    """An API that the run knows by this admin.conf."""

    def __init__(self, admin_conf: str) -> None:
        self.admin_conf, self.closed = admin_conf, False

    async def close(self) -> None:
        """Be closed."""
        self.closed = True


@pytest.mark.parametrize(("now", "dropped"), [("the same", False), ("another authority", True), (None, True)])
async def test_only_an_api_of_another_authority_is_dropped(now: str | None, dropped: bool) -> None:  # noqa: FBT001
    async def read(_fact: Any) -> str | None:
        return now

    run: Any = Run(parse_cluster(CLUSTER), "bootstrap")
    run.session = lambda _name: SimpleNamespace(read=read)
    await run.reconnect()  # nothing was asked for yet
    run._kube = api = Api("the same")
    await run.reconnect()
    assert (api.closed, run._kube is None) == (dropped, dropped)
