"""What surrounds the flow, without Prefect's API: lock, demo, API process, admission's rules, the retry layers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from flows.lock import hold_lock
from flows.prefect_api import local as local_api
from flows.prefect_api.process import main as api_process_main
from shipway.errors import LoginRefused, Refused, Unreachable
from shipway.retry import ATTEMPTS, patiently
from tasks.stage import RETRIES
from tasks.table import STAGES

ROOT = Path(__file__).parents[2]


def test_two_runs_on_one_cluster_refuse_and_name_the_holder(tmp_path: Path) -> None:
    lock = tmp_path / "te" / "lock"
    with hold_lock(lock, "te"):
        with pytest.raises(Refused, match=f"cluster te: process {os.getpid()} on "):
            hold_lock(lock, "te").__enter__()
        with pytest.raises(Refused):
            hold_lock(lock, "te", shared=True).__enter__()
    with hold_lock(lock, "te"):
        pass


def test_two_plans_may_look_at_once_but_not_beside_a_change(tmp_path: Path) -> None:
    lock, refuses = tmp_path / "lock", pytest.raises(Refused, match="a plan is being made")
    with hold_lock(lock, "te", shared=True), hold_lock(lock, "te", shared=True), refuses:
        hold_lock(lock, "te").__enter__()


def test_a_dead_runs_lock_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import os, sys; from pathlib import Path; from flows.lock import hold_lock; "
        "h = hold_lock(Path(sys.argv[1]), 'te'); h.__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(lock)], cwd=ROOT, check=False)
    assert json.loads(lock.read_text(encoding="utf-8"))["pid"] != os.getpid()
    with hold_lock(lock, "te"):
        assert json.loads(lock.read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_the_api_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import time; from flows.prefect_api.local import LocalApi; api = LocalApi(); api.__enter__(); "
        "print(api._process.pid, flush=True); time.sleep(99)"
    )
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    environment.pop("PREFECT_API_URL", None)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    ends = time.monotonic() + 20
    while time.monotonic() < ends and _lives(child):
        time.sleep(0.05)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    """Say whether a process works; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_api_that_is_set_is_used_and_none_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr("flows.prefect_api.given.check", lambda _: None)  # test_given_api.py has what it does
    with local_api.LocalApi() as api:
        assert (api.url, api.own) == ("http://127.0.0.1:9/api", False)
        assert api.drain([], 0) == ""


def test_an_api_of_prefects_active_profile_counts_as_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_PROFILE", raising=False)
    monkeypatch.delenv("PREFECT_PROFILES_PATH", raising=False)
    assert local_api.given_url() == ""
    profiles = 'active = "site"\n[profiles.site]\nPREFECT_API_URL = "http://prefect.example/api"\n[profiles.other]\n'
    (tmp_path / "profiles.toml").write_text(profiles, encoding="utf-8")
    assert local_api.given_url() == "http://prefect.example/api"
    monkeypatch.setenv("PREFECT_PROFILE", "other")
    assert local_api.given_url() == ""
    (tmp_path / "profiles.toml").write_text("not [ toml", encoding="utf-8")
    with pytest.raises(Refused, match=r"profiles\.toml"):
        local_api.given_url()


def test_an_api_process_that_ends_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(local_api, "COMMAND", (sys.executable, "-c", "print(9); raise SystemExit(7)"))
    with local_api.LocalApi() as api, pytest.raises(Refused, match="exit status 7"):
        api.wait(20)
    monkeypatch.setattr(local_api, "COMMAND", (sys.executable, "-c", "pass"))
    with pytest.raises(Refused, match="did not start"):
        local_api.LocalApi().__enter__()


def test_a_refused_runs_lines_are_sent_while_there_is_an_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else Prefect says "Error logging to API" below the refusal, when the interpreter ends."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    command = (sys.executable, "-c", "import sys; print(9, flush=True); sys.stdin.read()")
    monkeypatch.setattr(local_api, "COMMAND", command)
    alive: list[bool] = []
    with local_api.LocalApi() as api:
        process = api._process
        assert process is not None
        for worker in (EventsWorker, APILogWorker):
            monkeypatch.setattr(worker, "drain_all", lambda timeout: alive.append(process.poll() is None))  # noqa: ARG005
    assert alive == [True, True]
    assert process.poll() is not None


def test_only_what_may_pass_is_tried_again_inside_a_stage() -> None:
    tried: list[int] = []

    async def fails(error: Exception) -> None:
        tried.append(1)
        raise error

    for error, count in ((Unreachable("gone"), ATTEMPTS), (LoginRefused("no"), 1), (ValueError("a fault"), 1)):
        tried.clear()
        with pytest.raises(type(error)):
            asyncio.run(patiently(lambda error=error: fails(error), first=0.001, most=0.002))
        assert len(tried) == count


def test_a_second_try_that_works_gives_its_value() -> None:
    answers = [Unreachable("not yet"), None]

    async def answer() -> str:
        if error := answers.pop(0):
            raise error
        return "there"

    assert asyncio.run(patiently(answer, first=0.001)) == "there"


def test_the_product_of_both_retry_layers_is_the_one_written_down() -> None:
    text = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    assert f"{ATTEMPTS} x {1 + RETRIES} = {ATTEMPTS * (1 + RETRIES)}" in text
    assert {stage.retries for stage in STAGES.complete().values()} == {0, RETRIES}
    assert callable(api_process_main)
