"""What the tests of the layout share: the layout, a SIMULATED lab, a browser, a webhook, and where pictures go."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.simulated.control import ask
from shipway.cluster_file import load_cluster
from shipway.host.ssh import Pool
from shipway.kube.client import Kube
from tests.places.webhook import Heard
from tests.ui.browser import PHONE, Browser
from tests.ui.layout import Layout

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
FIELD = "//*[contains(@class,'schema-form-property') and .//*[starts-with(normalize-space(),'{}')]]"


@dataclass
class Site:
    """Everything that runs."""

    layout: Layout
    lab: Path
    browser: Browser
    heard: Heard
    pictures: Path

    @property
    def name(self) -> str:
        """The cluster's name."""
        return load_cluster(self.layout.clusters / "cluster.yaml").name

    def drift(self, host: str, kind: str, **values: Any) -> None:
        """Let something drift on a SIMULATED host."""
        ask(self.lab, do="drift", host=host, kind=kind, **values)

    def deployment(self, name: str) -> dict[str, Any]:
        """Return a deployment, as "flow/deployment"."""
        found: dict[str, Any] = self.layout.ask(f"/deployments/name/{name}")
        return found

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Return a deployment's runs that began or ended, the last one first."""
        about = {
            "deployments": {"id": {"any_": [self.deployment(deployment)["id"]]}},
            "sort": "EXPECTED_START_TIME_DESC",
        }
        found: list[dict[str, Any]] = self.layout.ask("/flow_runs/filter", about)
        return [run for run in found if run["state_type"] != "SCHEDULED"]

    def begun(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Begin a run as `prefect deployment run` does; return its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        made = self.layout.ask(f"/deployments/{self.deployment(deployment)['id']}/create_flow_run", body)
        return str(made["id"])

    def waited(self, run: str, *states: str, seconds: float = 180) -> dict[str, Any]:
        """Return a run once it is in such a state (any final one where none is named). Raises TimeoutError."""
        ends = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = self.layout.ask(f"/flow_runs/{run}")
            if found["state_name"] in states or (not states and found["state_type"] in FINAL):
                return found
            if time.monotonic() > ends:
                raise TimeoutError(f"{found['name']} is {found['state_name']}: {found['state'].get('message')}")
            time.sleep(0.5)

    def until(self, what: str, holds: Callable[[], Any], seconds: float = 120) -> Any:
        """Return what holds once it does. Raises TimeoutError."""
        ends = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > ends:
                raise TimeoutError(f"after {seconds:.0f} s still not so: {what}")
            time.sleep(0.5)
        return found

    def form(self, deployment: str) -> None:
        """Open a deployment's run form as a person does: list, deployment, Run, Custom run."""
        name = deployment.partition("/")[2]
        self.browser.open(f"{self.layout.url}/deployments")
        self.browser.click(f"//a[normalize-space()='{name}' and contains(@href,'/deployments/deployment/')]")
        self.browser.click("//button[normalize-space()='Run']")
        self.browser.click("//*[normalize-space()='Custom run']")
        self.browser.shows("cluster_file")

    def submitted(self, deployment: str) -> str:
        """Submit the form that is open; return the new run's id."""
        before = {run["id"] for run in self.runs(deployment)}
        self.browser.click("//button[@type='submit']")
        self.browser.shows("scheduled to start now")
        new = self.until("a new run", lambda: [r for r in self.runs(deployment) if r["id"] not in before])
        return str(new[-1]["id"])

    def run_page(self, run: str, *shows: str, picture: str = "") -> str:
        """Open a run's page, wait for the texts, let its graph be drawn, keep a picture; return what it shows."""
        self.browser.open(f"{self.layout.url}/runs/flow-run/{run}")
        seen = ""
        for text in shows:
            seen = self.browser.shows(text)
        if picture:
            time.sleep(6)  # the graph is drawn by WebGL in steps that no element tells of
            self.picture(picture)
        return seen

    def picture(self, name: str) -> None:
        """Keep what the window shows."""
        print(f"    picture {self.browser.picture(self.pictures / f'{name}.png')}")

    def phone(self) -> None:
        """Make the window a phone's."""
        self.browser.size(PHONE, 844, phone=True)

    def desk(self) -> None:
        """Make the window a desk's."""
        self.browser.size(1400, 1000)

    def kube(self, work: Callable[[Kube], Any]) -> Any:
        """Do something with the SIMULATED cluster's API, behind Shipway's back."""

        async def done() -> Any:
            cluster, pool = load_cluster(self.layout.clusters / "cluster.yaml"), Pool()
            kube = await Kube.connect(pool.host(cluster.target(cluster.control_planes[0])), cluster)
            try:
                return await work(kube)
            finally:
                await kube.close()
                await pool.close()

        return asyncio.run(done())


def pictures_in(default: Path) -> Path:
    """Return where pictures go: SHIPWAY_UI_PICTURES, or a folder of this run."""
    place = Path(os.environ.get("SHIPWAY_UI_PICTURES") or default)
    place.mkdir(parents=True, exist_ok=True)
    return place
