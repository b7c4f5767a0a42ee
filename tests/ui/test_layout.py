"""A person at the UI of a server on PostgreSQL and Redis: deploy, forms, runs, approval, artifacts, notification.

The tests tell one story and build on each other, in this order.
"""

from __future__ import annotations

import time
from datetime import datetime

import pytest
import yaml

from flows.drift_repair import drift_repair
from tests.ui.browser import PHONE
from tests.ui.layout import ROOT
from tests.ui.site import FIELD, Site

pytestmark = [
    pytest.mark.ui,
    pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning"),
]
DRIFT = "drift-repair/drift-repair"
# Items per page: the one choice with a hundred in it.
HUNDRED = """for (const choice of document.querySelectorAll('select')) for (const one of choice.options)
  if (one.text.trim() === '100') {
    choice.value = one.value;
    choice.dispatchEvent(new Event('change', {bubbles: true}));
  }"""
DIALOG = "//*[contains(@class,'p-modal')]"


def test_every_deployment_is_in_the_list(site: Site) -> None:
    declared = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    site.desk()
    site.browser.open(f"{site.layout.url}/deployments")
    site.browser.shows(f"\n{len(declared)} Deployments")
    site.browser.js(HUNDRED)  # a page holds ten otherwise
    for name in (one["name"] for one in declared):
        site.browser.shows(f"\n{name}\n")
    assert site.layout.stores.query("select count(*) from deployment") == str(len(declared))
    print(f"    {len(declared)} deployments, in {site.layout.stores.query('select version()')[:16]}")


def test_the_run_form_explains_itself_and_refuses_what_is_not_of_the_kind(site: Site) -> None:
    site.form(DRIFT)
    seen = " ".join(site.browser.text().split())
    for name, field in drift_repair.parameters.properties.items():
        assert name in seen
        assert " ".join(field["description"].split()) in seen
    site.picture("run-form-drift")
    before = len(site.runs(DRIFT))
    site.browser.type(f"{FIELD.format('cluster_file')}//textarea", "\ue003", instead=True)
    site.browser.click("//button[@type='submit']")
    site.browser.shows("'cluster_file' is a required property")
    assert "/run" in site.browser.url.rpartition("/deployments/deployment/")[2]
    assert len(site.runs(DRIFT)) == before
    site.picture("run-form-refused")
    print("    every parameter is described; an empty cluster_file is not submitted")


def test_a_bootstrap_from_its_form_ends_ok_and_its_page_shows_the_graph(site: Site) -> None:
    site.form("bootstrap/bootstrap")
    site.picture("run-form")
    site.browser.click("//select/option[@value='bootstrap']")
    run = site.waited(site.submitted("bootstrap/bootstrap"))
    assert run["state_name"] == "Completed", run["state"]
    site.run_page(run["id"], f"bootstrap {site.name}", "Completed", "Task runs", picture="run-graph")
    print(f"    bootstrap from the form: {run['state']['message']}; {run['total_run_time']:.0f} s")


def test_a_pass_that_asks_is_answered_in_the_browser_and_does_only_that(site: Site) -> None:
    heard = len(site.heard.got)
    site.drift("te2", "unhold", package="kubelet")
    site.drift("te3", "swap-on")
    site.drift("te4", "disable", unit="kubelet.service")
    site.form(DRIFT)
    site.browser.click(f"{FIELD.format('ask')}//*[@role='switch']")
    run = site.submitted(DRIFT)
    site.waited(run, "Paused")
    site.until("the webhook hears of it", lambda: len(site.heard.got) > heard)
    assert site.heard.got[-1]["automation"] == "shipway: approval is asked for"
    beside = site.waited(site.begun(DRIFT, {"cluster_file": "cluster.yaml"}))
    assert beside["state_name"] == "Refused"
    assert "SHW-102" in beside["state"]["message"]
    site.run_page(run, "Paused")
    site.browser.click("//button[normalize-space()='Resume']")
    plan = site.browser.shows("3 things drifted and would be repaired")
    for line in ("te2: kubelet, kubeadm, kubectl are held (files)", "te3: swap is off (service)", "te4: kubelet"):
        assert line in plan
    site.browser.click(f"{DIALOG}//*[@role='switch']")
    site.browser.click(f"{DIALOG}//button[normalize-space()='Add item']")
    site.browser.find(f"({DIALOG}//textarea)[2]")  # the comment is the second one from now on
    site.browser.type(f"({DIALOG}//textarea)[1]", "te4")
    site.browser.type(f"({DIALOG}//textarea)[2]", "te4 is looked at by a colleague")
    site.picture("approval")
    site.browser.click(f"{DIALOG}//button[normalize-space()='Submit']")
    ended = site.waited(run)
    assert (ended["state_name"], ended["state"]["message"]) == ("Drifted", "drifted: 4 hosts; 2 repaired, 1 held back")
    page = site.run_page(run, "Drifted", "te4 is looked at by a colleague", picture="drift-run")
    assert "repair approved" in page
    print(f"    paused, reported, a second run refused, answered in the browser: {ended['state']['message']}")


def test_a_scheduled_pass_starts_on_time_and_repairs_the_rest(site: Site) -> None:
    """Switched on, the half-hourly schedule has its runs made; one of every minute is added to watch one."""
    (schedule,) = site.deployment(DRIFT)["schedules"]
    assert schedule["active"] is False
    site.layout.command("prefect", "deployment", "schedule", "resume", DRIFT, schedule["id"])
    about = {
        "deployments": {"id": {"any_": [site.deployment(DRIFT)["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    coming = site.until("scheduled runs", lambda: site.layout.ask("/flow_runs/filter", about))
    assert {datetime.fromisoformat(one["expected_start_time"]).minute for one in coming} == {0, 30}
    site.layout.command(
        "prefect", "deployment", "schedule", "create", DRIFT, "--cron", "* * * * *", "--timezone", "UTC"
    )
    try:
        done = site.until(
            "a scheduled pass",
            lambda: [r for r in site.runs(DRIFT) if r["auto_scheduled"] and r["state_type"] == "COMPLETED"],
        )[-1]
    finally:
        site.layout.command(
            "prefect", "--no-prompt", "deploy", "--name", "drift-repair", "--prefect-file", "deployments/prefect.yaml"
        )
    assert done["state"]["message"] == "ok: 4 hosts; 1 repaired"
    late = datetime.fromisoformat(done["start_time"]) - datetime.fromisoformat(done["expected_start_time"])
    assert late.total_seconds() < 30
    site.run_page(done["id"], "Completed", f"drift of {site.name}", picture="scheduled-run")
    print(
        f"    {len(coming)} half-hourly runs are scheduled; a scheduled pass began {late.total_seconds():.1f} s late: "
        f"{done['state']['message']}"
    )


def test_drift_that_is_left_is_reported_by_webhook(site: Site) -> None:
    heard = len(site.heard.got)
    site.drift("te3", "skew", seconds=90)
    began = time.monotonic()
    run = site.waited(site.begun(DRIFT, {"cluster_file": "cluster.yaml"}))
    site.drift("te3", "skew", seconds=0)
    assert run["state_name"] == "Drifted"
    site.until("the webhook hears of it", lambda: [o for o in site.heard.got[heard:] if o["outcome"] == "Drifted"])
    body = site.heard.got[-1]
    assert body["automation"] == "shipway: drift is left"
    assert body["url"].endswith(f"/runs/flow-run/{run['id']}")
    print(f"    {time.monotonic() - began:.0f} s after the run was asked for: {body}")


@pytest.mark.parametrize("kind", ["report", "findings", "trend", "gpus", "progress"])
def test_an_artifact_is_readable_on_a_phone(site: Site, kind: str) -> None:
    about = {"artifacts": {"key": {"any_": [f"drift-{site.name}-{kind}"]}}}
    (found,) = site.layout.ask("/artifacts/latest/filter", about)
    site.phone()
    try:
        site.browser.open(f"{site.layout.url}/artifacts/artifact/{found['latest_id']}")
        expected = {"report": "the clocks agree", "findings": "reported", "trend": "found", "gpus": "with driver"}
        site.browser.shows(expected.get(kind, "the pass has ended"))
        time.sleep(1)
        site.picture(f"phone-{kind}")
        assert site.browser.js("return document.documentElement.scrollWidth") <= PHONE
    finally:
        site.desk()


def test_a_fleet_hands_its_groups_to_two_workers_and_joins_their_reports(site: Site) -> None:
    """Five runs where a worker takes one at a time: one has the fleet's own, and the other two share its groups."""
    for name in tuple(site.layout.workers):
        site.layout.end_worker(name)
    for name in ("worker-3", "worker-4", "worker-5"):
        site.layout.start_worker(name, limit="1")
        site.layout.healthy(name)
    site.drift("te2", "unhold", package="kubelet")
    parameters = {"cluster_file": "cluster.yaml", "what": "look", "hosts_in_a_group": 1}
    run = site.waited(site.begun("fleet/fleet", parameters))
    assert (run["state_name"], run["state"]["message"].partition(";")[0]) == ("Drifted", "drifted: 4 hosts in 4 groups")
    groups = {group["name"]: site.layout.holders(group["id"]) for group in site.runs("fleet-group/group")}
    assert len(groups) == 4
    assert len({name for names in groups.values() for name in names}) == 2
    site.run_page(run["id"], "Drifted", picture="fleet-run")
    assert site.waited(site.begun(DRIFT, {"cluster_file": "cluster.yaml"}))["state_name"] == "Completed"
    print(f"    {run['state']['message']}; {run['total_run_time']:.0f} s; groups by worker: {groups}")
