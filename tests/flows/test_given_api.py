"""A Prefect API that is set and of no use is reported in one line within seconds; loopback goes through no proxy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import prefect
import pytest
from prefect.settings import Settings

from flows.prefect_api import given as given_api
from flows.prefect_api.local import LocalApi
from flows.prefect_api.settings import setting
from shipway.errors import Refused

ROOT = Path(__file__).parents[2]
SAME = f'"{prefect.__version__}"'
FINE = "name: te\nprofile: seed\nhosts:\n- {name: te1, address: 192.0.2.1}\n- {name: te2, address: 192.0.2.2}\n"
PROXY = "http://ops:s3cret-word@127.0.0.1:9"
Answer = tuple[int, str]


@contextmanager
def server(answer: Callable[[str], Answer], logins: list[str] | None = None) -> Iterator[str]:
    """Run an HTTP server that says what `answer` says to a path; yields the address of its API, notes logins."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer(self.path)
            if logins is not None:
                logins.append(self.headers["authorization"])
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()  # how soon it hears of its end
        yield f"http://127.0.0.1:{made.server_port}/api"
        made.shutdown()


def version(text: str, status: int = 200) -> Callable[[str], Answer]:
    """Answer as a server of that version: its health needs no login."""
    return lambda path: (200, "true") if path == "/api/health" else (status, text)


def refusal(url: str, seconds: float = 0.5) -> Refused:
    """Return why a run cannot use the API that is set; a server has so many seconds to come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", url)
        patch.setattr(given_api, "check", partial(given_api.check, seconds=seconds))
        began = time.monotonic()
        with pytest.raises(Refused) as refused, LocalApi():
            pass
        assert time.monotonic() - began < 5
    return refused.value


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (version('{"exception_message":"Unauthorized"}', 401), "SHW-132", "HTTP 401"),
        (version("Forbidden", 403), "SHW-132", "HTTP 403"),
        (version('"2.20.4"'), "SHW-134", "of version 2.20.4"),
        (version('"3.0.1"'), "SHW-134", "of version 3.0.1"),
        (version("<html>Welcome to nginx</html>"), "SHW-133", "is not Prefect's API"),
        (version("[]"), "SHW-133", "is not Prefect's API"),
        (version("no", 404), "SHW-133", "HTTP 404"),
        (lambda _: (503, "<html>Squid</html>"), "SHW-131", "HTTP 503"),
        (lambda _: (407, "<html>Squid</html>"), "SHW-133", "HTTP 407"),
    ],
)
def test_an_api_that_is_of_no_use_is_reported_in_seconds(answer: Callable[[str], Answer], code: str, said: str) -> None:
    with server(answer) as url:
        refused = refusal(url)
    assert refused.code == code
    assert said in refused.message
    assert "\n" not in str(refused)


def test_a_server_of_the_same_version_or_a_newer_one_fits() -> None:
    major, minor, *_ = prefect.__version__.split(".")
    for theirs in (prefect.__version__, f"{major}.{minor}.0", f"{major}.{int(minor) + 3}.0"):
        with server(version(f'"{theirs}"')) as url:
            given_api.check(url)


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("PREFECT_API_AUTH_STRING", "admin:pass", "Basic YWRtaW46cGFzcw=="),
        ("PREFECT_API_KEY", "pnu_1", "Bearer pnu_1"),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", '{"authorization": "Own 1"}', "Own 1"),
    ],
)
def test_a_login_is_sent_as_prefects_client_sends_it(
    name: str, value: str, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    seen: list[str] = []
    with server(version(SAME), seen) as url:
        given_api.check(url)
    assert seen == [sent]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".env", "# mine\nPREFECT_API_URL='http://site.example/api'\n"),
        ("prefect.toml", '[api]\nurl = "http://site.example/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://site.example/api"\n'),
        ("profiles.toml", 'active = "x"\n[profiles.x]\nPREFECT_API_URL = "http://site.example/api"\n'),
    ],
)
def test_a_setting_is_found_wherever_prefect_finds_it(
    file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert setting("PREFECT_API_URL") == ""
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert setting("PREFECT_API_URL") == "http://site.example/api"
    assert Settings().api.url == "http://site.example/api"  # as Prefect reads them, anew
    monkeypatch.setenv("PREFECT_API_URL", "http://other.example/api")
    assert setting("PREFECT_API_URL") == "http://other.example/api"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:9/api", "SHW-131"),
        ("http://no-such-host.invalid/api", "SHW-131"),
        ("127.0.0.1:4200", "SHW-133"),
        ("ftp://127.0.0.1/api", "SHW-133"),
    ],
)
def test_an_address_where_nothing_listens_is_reported_in_seconds(url: str, code: str) -> None:
    assert refusal(url, given_api.SECONDS).code == code


def test_a_server_that_speaks_no_http_or_nothing_at_all_is_reported_in_seconds() -> None:
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        assert refusal(f"http://127.0.0.1:{silent.getsockname()[1]}/api").code == "SHW-131"


def test_a_server_that_has_much_to_do_is_waited_for_where_one_that_is_not_there_is_told_at_once() -> None:
    asked: list[float] = []

    def slowly(path: str) -> Answer:
        if path.endswith("version"):
            asked.append(time.monotonic())
            if len(asked) == 1:
                time.sleep(1.0)
        return (200, SAME)

    with server(slowly) as url:
        given_api.check(url, 0.5)
    assert len(asked) == 2, "the first answer came too late for its own question"


def test_a_server_that_restarts_has_a_moment() -> None:
    began = time.monotonic()
    with server(lambda _: (503, "") if time.monotonic() - began < 1 else (200, SAME)) as url:
        given_api.check(url)


def test_a_proxy_before_an_api_elsewhere_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    refused = refusal("http://prefect.example/api")
    assert refused.code == "SHW-131"
    assert "through the proxy http://[hidden]@127.0.0.1:9 (http_proxy" in refused.message


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "site.example,127.0.0.1"}, "site.example,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a.example", "NO_PROXY": "b.example"}, "a.example,b.example,localhost,127.0.0.1,::1"),
    ],
)
def test_loopback_is_added_to_what_goes_past_the_proxy(before: dict[str, str], after: str) -> None:
    environment = dict(before)
    given_api.keep_loopback_direct(environment)
    assert (environment["no_proxy"], environment["NO_PROXY"]) == (after, after)


def test_every_library_goes_to_loopback_past_a_proxy_of_the_environment() -> None:
    """Case 08: urllib, httpx (Prefect's client) and aiohttp, in a process that has a proxy where nothing listens."""
    code = """
import asyncio, os, sys, urllib.request
from flows.prefect_api.given import keep_loopback_direct
keep_loopback_direct(os.environ)
import aiohttp, httpx
url = sys.argv[1] + "/health"
async def ask():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as answer:
        return answer.status
print(urllib.request.urlopen(url, timeout=5).status, httpx.get(url, timeout=5).status_code, asyncio.run(ask()))
"""
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    environment = {key: value for key, value in os.environ.items() if key.lower() != "no_proxy"} | dict.fromkeys(
        names, PROXY
    )
    with server(version(SAME)) as url:
        ran = subprocess.run(
            [sys.executable, "-c", code, url], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    assert ran.stdout.split() == ["200", "200", "200"], ran.stderr


def test_a_command_says_so_in_one_line_and_touches_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(FINE, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    with server(version("no", 401)) as url:
        ran = subprocess.run(
            [sys.executable, "-m", "flows.bootstrap", file, "--plan"],
            cwd=ROOT,
            env=environment | {"PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path), "http_proxy": PROXY},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 1
    (line,) = [line for line in ran.stdout.splitlines() if "error" in line]
    assert "does not let us in: HTTP 401 [SHW-132] Next: Set PREFECT_API_KEY" in line
    assert ran.stderr == ""
    assert "loading Prefect" not in ran.stdout  # which takes seconds by itself
