"""A host that answers anything: every command of a script gets an exit status and texts that hypothesis draws."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import re
import shutil
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import tomli_w
import yaml
from hypothesis import strategies as st

import shipway.host.session
from shipway.cluster_file import parse_cluster
from shipway.errors import ShipwayError
from shipway.host.session import Host
from shipway.script import Output
from shipway.survey.first_look import survey
from tests.places.answering_shell import AnsweringShell
from tests.security.hostile import WHOLE, with_value
from tests.security.hostile_hosts import all_steps

AUTHORITY = Path(tempfile.mkdtemp(prefix="shipway-fuzz-")) / "ca.pem"  # a registry's, read by the steps
AUTHORITY.write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
atexit.register(shutil.rmtree, AUTHORITY.parent, ignore_errors=True)
CLUSTER = parse_cluster(
    yaml.safe_dump(
        with_value(
            with_value(WHOLE, ("sources", "registries", "ca.example.com", "ca"), str(AUTHORITY)),
            ("hardening", "audit", "policy"),
            None,  # ours
        )
    )
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
# Words that parsers look for, so that drawn texts come past their first line.
KEYS = st.sampled_from(
    re.split(
        r"\s+",
        "version plugins io.containerd.grpc.v1.cri io.containerd.cri.v1.runtime io.containerd.cri.v1.images containerd "
        "disabled_plugins runtimes registry cni runc options bin_dirs pinned_images kind apiVersion clusters users "
        "contexts current-context user cluster name server",
    )
)
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
TABLES = st.dictionaries(KEYS, TREES, max_size=5)


def toml(data: dict[str, Any]) -> str:
    """Return data as TOML that begins like a configuration; what TOML cannot say is left out."""
    return tomli_w.dumps({"version": 2, **plain(data)})


def plain(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: plain(value) for key, value in part.items() if value is not None}
    if isinstance(part, list):
        return [plain(value) for value in part if value is not None]
    return part if not isinstance(part, int) or abs(part) < 2**60 else 1


WORDS = st.sampled_from(
    re.split(
        ",",
        "kubelet,ii ,1.34.2-1.1,active,inactive,LoadState=loaded,ActiveState=failed,644,x.swap,regular file,root:root,"
        '/etc/hosts,MemTotal:,100%,(UUID: GPU-1),notAfter=Nov 24,0x10de,ID=debian,LISTEN,(("x",10.0.0.1/24,:6443,'
        "1700000000,ok,=,,\x00,\xe9,999999999999999999999999999999",
    )
)
ROWS = st.lists(st.lists(WORDS, max_size=7), max_size=6).map(
    lambda rows: "\n".join("|".join(row) if len(row) % 2 else " ".join(row) for row in rows)
)
TEXTS = st.one_of(
    st.text(max_size=120),
    ROWS,
    TABLES.map(toml),
    TREES.map(yaml.safe_dump),
    st.text("{}[]&*!%@`-: \n0123456789", max_size=60),
    st.sampled_from(
        ["x: 2001-13-45", "[" * 1500, "abcdef.0123456789abcdef", "version = 2\nplugins = 5", "{a: 1", "\u2028" * 9]
    ),
)
OUTPUTS = st.builds(Output, st.sampled_from([0, 0, 0, 1, 2, 124, 126, 127, 137, 255]), TEXTS, TEXTS)


def fuzzed(outputs: list[Output], *, cut: bool) -> AnsweringShell:
    """Return a Shell whose host answers what is drawn, a few answers in turn."""
    turn = itertools.cycle(outputs)
    return AnsweringShell(lambda _: next(turn), cut)


@contextmanager
def hurried() -> Iterator[None]:
    """Waits for an operation of an earlier run are over at once: a host that says "active" says so for ever."""
    quick = types.SimpleNamespace(**vars(asyncio))
    quick.sleep = lambda _: asyncio.sleep(0)
    quick.timeout = lambda _: asyncio.timeout(0.01)
    with mock.patch.object(shipway.host.session, "asyncio", quick):
        yield


async def everything_on(outputs: list[Output], *, cut: bool) -> Counter[str]:
    """Let every step look and work on such a host; gives how each ended. Whatever is no error of ours is raised."""
    ends: Counter[str] = Counter()
    shell = fuzzed(outputs, cut=cut)
    control = Host("te1", fuzzed(outputs, cut=cut))
    deeds: list[Callable[[Host], Any]] = [survey]
    for step in all_steps(CLUSTER, control):
        deeds.append(step.check)
        deeds += [lambda on, step=step: step.apply(on)] if hasattr(step, "apply") else []
    for deed in deeds:
        try:
            async with asyncio.timeout(20):
                await deed(Host("te2", shell))
        except ShipwayError as error:
            str(error).encode()
            ends[type(error).__name__] += 1
        else:
            ends["done"] += 1
        control.forget()
    ends["commands"] = len(shell.lines)
    return ends
