"""A pytest plugin: each mutant of one module in a process of its own, forked once all tests are collected.

The unmutated tests run first, in such a process too, to learn which lines of the module each of them runs and how long
it takes: a mutant is only shown to the tests that run its line, the quickest first, until one fails. In the forked
process the code of the functions is replaced in memory; the file is replaced as well, for tests that start programs.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import importlib
import json
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from tests.mutants.operators import Mutant, mutants

LEAST_SECONDS, TIMES = 10.0, 4.0  # how long the tests of a mutant may take: so many times what they take without it
BASELINE_SECONDS = 1800.0
Tests = dict[str, tuple[float, set[int]]]  # by name: seconds, and the lines of the module that it runs
Live = dict[tuple[str, int], list[FunctionType]]  # by name and first line: the functions that are there


class Lines:
    """Which lines of a file each test runs; a fixture that several tests share is counted for each of them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.open: list[set[int]] = []
        self.of_fixture: dict[str, set[int]] = defaultdict(set)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Keep the lines of the file (sys.settrace)."""
        if frame.f_code.co_filename != self.path:
            return None
        if event in ("line", "call") and self.open:
            self.open[-1].add(frame.f_lineno)
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        """Keep what a fixture runs, for all tests that use it."""
        del request
        self.open.append(set())
        try:
            return (yield)
        finally:
            lines = self.open.pop()
            self.of_fixture[fixturedef.argname] |= lines
            if self.open:
                self.open[-1] |= lines


class Failed:
    """Whether a test failed in this process."""

    def __init__(self) -> None:
        self.by = self.why = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the first failure."""
        if report.failed and not self.by:
            self.by = report.nodeid
            self.why = str(report.longrepr)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say which module is mutated, and where the results go."""
    parser.addoption("--mutate", help="a module's file, relative to the root")
    parser.addoption("--mutate-into", help="the file that the results are written to, as JSON")
    parser.addoption("--mutate-matching", default="", help="only mutants whose name holds this text")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run the tests once as they are, then the mutants."""
    option = session.config.option
    path = Path(session.config.rootpath, option.mutate)
    source = path.read_text(encoding="utf-8")
    importlib.import_module(_module(option.mutate))
    tests = _forked(functools.partial(_baseline, session, str(path)), BASELINE_SECONDS)
    if not isinstance(tests, dict):
        print(f"the tests do not end without any mutant: {tests}", file=sys.__stderr__)
        pytest.exit("see above", 3)
    results = []
    gc.unfreeze()  # tests/conftest.py freezes what is imported, and what is frozen is not among the objects
    live = _functions(str(path))
    if not live:
        raise RuntimeError(f"no function of {path} is there: each mutant would be taken for one that a test saw")
    gc.collect()
    gc.freeze()  # what is here is never collected, so a forked process shares it
    try:
        for mutant in mutants(source):
            if option.mutate_matching not in mutant.id:
                continue
            started = time.monotonic()
            by = _killer(session, mutant, path, tests, live)
            took = time.monotonic() - started
            results.append({"id": mutant.id, "line": mutant.lines.start, "by": by, "seconds": round(took, 2)})
            print(f"{took:6.2f} s  {by or 'SURVIVED'}  {mutant.lines.start}: {mutant.id}", file=sys.__stderr__)
            path.write_text(source, encoding="utf-8")
    finally:
        path.write_text(source, encoding="utf-8")
        left_out = [item.nodeid for item in session.items if item.nodeid not in tests]
        Path(option.mutate_into).write_text(json.dumps({"mutants": results, "left_out": left_out}), encoding="utf-8")
    return True


def _killer(session: pytest.Session, mutant: Mutant, path: Path, tests: Tests, live: Live) -> str:
    """Return the test that fails with the mutant, "" where none does."""
    seen = [
        (took, one)
        for one, (took, lines) in tests.items()
        if mutant.value is not None or any(line in mutant.lines for line in lines)
    ]
    if not seen:
        return ""
    path.write_text(ast.unparse(mutant.tree), encoding="utf-8")  # for tests that start programs
    limit = max(LEAST_SECONDS, TIMES * sum(took for took, _ in seen))
    names = sorted(seen)
    answer = _forked(functools.partial(_with_mutant, session, mutant, live, names), limit)
    return str(answer)


def _forked(work: Any, seconds: float) -> Any:
    """Return what `work` returns in a forked process; a text about it where it ends otherwise."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(reads)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1):  # what is said of a failure is on standard error
            os.dup2(null, number)
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - whatever ends it is reported
            answer = f"{type(error).__name__}: {error}"
        with os.fdopen(writes, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        os._exit(0)
    os.close(writes)
    ends, data = time.monotonic() + seconds, b""
    with os.fdopen(reads, "rb", buffering=0) as pipe:
        while (left := ends - time.monotonic()) > 0:
            if select.select([pipe], [], [], left)[0]:
                part = pipe.read(65536)
                if not part:
                    break
                data += part
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # with whatever it started and did not end
    os.waitpid(child, 0)
    return pickle.loads(data) if data else "no answer in time"  # noqa: S301 - our own


def _baseline(session: pytest.Session, path: str) -> Tests:
    """Return the seconds and lines of each test that succeeds."""
    lines, failed = Lines(path), Failed()
    for plugin in (lines, failed):
        session.config.pluginmanager.register(plugin)
    found: Tests = {}
    for at, item in enumerate(session.items):
        lines.open = [set()]
        threading.settrace(lines.trace)
        sys.settrace(lines.trace)
        started = time.monotonic()
        following = session.items[at + 1] if at + 1 < len(session.items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        sys.settrace(None)
        if failed.by:  # here, without any mutant: it says nothing about one
            print(f"left out, for it fails without any mutant: {failed.by}\n{failed.why}", file=sys.__stderr__)
            failed.by = ""
            continue
        run = lines.open[0]
        for fixture in getattr(item, "fixturenames", ()):
            run |= lines.of_fixture.get(fixture, set())
        found[item.nodeid] = (time.monotonic() - started, run)
    return found


def _with_mutant(session: pytest.Session, mutant: Mutant, live: Live, names: list[tuple[float, str]]) -> str:
    """Run tests with a mutant until one fails; return its name, "" where none does."""
    failed = Failed()
    session.config.pluginmanager.register(failed)
    _apply(mutant, live, session.config.option.mutate)
    items = {item.nodeid: item for item in session.items}
    for at, (took, name) in enumerate(names):
        following = items[names[at + 1][1]] if at + 1 < len(names) else None
        signal.alarm(int(max(LEAST_SECONDS, TIMES * took)))  # it ends this process
        items[name].config.hook.pytest_runtest_protocol(item=items[name], nextitem=following)
        if failed.by:
            session._setupstate.teardown_exact(None)
            break
    return failed.by


def _functions(path: str) -> Live:
    """Return the functions of a file that are there, by name and first line."""
    found: Live = defaultdict(list)
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename == path:
            found[one.__code__.co_qualname, one.__code__.co_firstlineno].append(one)
    return found


def _apply(mutant: Mutant, live: Live, file: str) -> None:
    """Put a mutant in place of the module's code in this process."""
    if mutant.value is not None:
        module = importlib.import_module(_module(file))
        value = eval(compile(ast.Expression(mutant.value), file, "eval"), vars(module))  # noqa: S307 - the module's own
        if mutant.name != mutant.where:
            setattr(getattr(module, mutant.where), mutant.name, value)
            return
        old = getattr(module, mutant.name)
        for one in list(sys.modules.values()):  # those that import it too
            if getattr(one, mutant.name, None) is old:
                setattr(one, mutant.name, value)
        return
    path = next(iter(live.values()))[0].__code__.co_filename
    for code in _codes(compile(mutant.tree, path, "exec")):
        for one in live.get((code.co_qualname, code.co_firstlineno), ()):
            if len(code.co_freevars) == len(one.__code__.co_freevars):
                one.__code__ = code


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)
