"""A real browser: Debian's chromium, headless, driven over the W3C WebDriver protocol that chromedriver speaks."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ui.stores import LOOPBACK, free_port, listening, process

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--lang=en-US",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOOPBACK}",  # pages reach nothing but our own server
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's reference (W3C WebDriver, section 12)
WAIT_SECONDS = 30.0
PHONE = 390  # CSS pixels


class Browser:
    """One window. What it is asked for is waited for: pages build themselves after they have loaded."""

    def __init__(self, port: int, profile: str) -> None:
        self._root = f"http://{LOOPBACK}:{port}"
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"script": 30_000}}}
        made = self._send("POST", "/session", {"capabilities": wanted})
        self._session = f"/session/{made['sessionId']}"
        self.size(1200, 1000)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._root + path, data, {"content-type": "application/json"}, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:  # noqa: S310 - loopback
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            said = json.loads(error.read())["value"]
            raise LookupError(f"{said['error']}: {said['message']}") from error

    def _do(self, path: str, **body: Any) -> Any:
        return self._send("POST", self._session + path, body)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Size the page to this many CSS pixels; a phone has two device pixels for one, and touch."""
        numbers = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._do("/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=numbers)

    def open(self, url: str) -> None:
        """Go to a page."""
        self._do("/url", url=url)

    @property
    def url(self) -> str:
        """Where the page is."""
        return str(self._send("GET", f"{self._session}/url"))

    def js(self, script: str, *values: Any) -> Any:
        """Return what a script of the page returns."""
        return self._do("/execute/sync", script=script, args=list(values))

    def text(self) -> str:
        """Return all that the page shows."""
        return str(self.js("return document.body.innerText"))

    def shows(self, text: str, seconds: float = WAIT_SECONDS) -> str:
        """Wait until the page shows a text; return all that it shows. Raises LookupError with what it shows instead."""
        ends = time.monotonic() + seconds
        while text not in (seen := self.text()):
            if time.monotonic() > ends:
                raise LookupError(f"the page does not show {text!r} after {seconds:.0f} s, but:\n{seen[:3000]}")
            time.sleep(0.2)
        return seen

    def find(self, xpath: str, seconds: float = WAIT_SECONDS) -> dict[str, str]:
        """Wait for an element that can be seen; return its reference. Raises LookupError."""
        ends = time.monotonic() + seconds
        while True:
            for one in self._do("/elements", using="xpath", value=xpath):
                try:
                    if self._send("GET", f"{self._session}/element/{one[ELEMENT]}/displayed"):
                        return dict(one)
                except LookupError:  # the page has built itself anew meanwhile
                    continue
            if time.monotonic() > ends:
                raise LookupError(
                    f"nothing to be seen at {xpath} after {seconds:.0f} s; the page:\n{self.text()[:3000]}"
                )
            time.sleep(0.2)

    def click(self, xpath: str, seconds: float = WAIT_SECONDS) -> None:
        """Click on what a user would; what covers it for a moment is waited for."""
        ends = time.monotonic() + seconds
        while True:
            try:
                one = self.find(xpath, max(0.1, ends - time.monotonic()))
                self._do(f"/element/{one[ELEMENT]}/click")
            except LookupError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.3)
            else:
                return

    def type(self, xpath: str, text: str, *, instead: bool = False) -> None:
        """Type into a field, or `instead` of what stands in it."""
        one = self.find(xpath)
        self._do(f"/element/{one[ELEMENT]}/value", text=("\ue009a\ue000" if instead else "") + text)

    def picture(self, path: Path) -> Path:
        """Keep what the window shows as a PNG file."""
        path.write_bytes(base64.b64decode(self._send("GET", f"{self._session}/screenshot")))
        return path

    def close(self) -> None:
        """Close it."""
        self._send("DELETE", self._session)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Yield a browser with a profile of its own."""
    profile, port = tempfile.mkdtemp(prefix="shipway-chromium-"), free_port()
    try:
        with process(("chromedriver", f"--port={port}"), folder / "chromedriver.log") as made:
            listening(port, made)
            one = Browser(port, profile)
            try:
                yield one
            finally:
                one.close()
    finally:
        shutil.rmtree(profile, ignore_errors=True)
