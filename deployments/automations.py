"""Notifications as code: automations that call a webhook or another block. `python -m deployments.automations`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from prefect import get_client
from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound, PrefectException
from pydantic import SecretStr

DEFAULT_BLOCK = "webhook/shipway"
RUNS = ("bootstrap", "fleet", "verify-cluster")
# A flow run's event is named for its state: shipway's flows name theirs for the outcome (docs/notifications.md).
BROKEN = ("Failed", "Partial", "Refused", "Crashed", "TimedOut")
DRIFT_LEFT = ("Drifted", "Partial", "Failed", "Refused", "Crashed", "TimedOut")
ASKS = ("Paused",)
SUBJECT = "Shipway: {{ flow.name }} is {{ flow_run.state.name }}"
BODY = "{{ flow_run.name }}: {{ flow_run.state.message or '' }}\n{{ flow_run|ui_url }}"
# Names and messages are quoted by `tojson`: what a host said must not break the receiver's JSON.
PAYLOAD = (
    '{"text": {{ (flow.name ~ " is " ~ flow_run.state.name ~ ": " ~ (flow_run.state.message or flow_run.name))'
    "|tojson }},"
    ' "automation": {{ automation.name|tojson }}, "flow_run": {{ flow_run.name|tojson }},'
    ' "outcome": {{ flow_run.state.name|tojson }}, "url": {{ flow_run|ui_url|tojson }}}'
)
Done = Literal["created", "updated", "as wanted"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One automation: its name, what it is for, and the flows and state names that set it off."""

    name: str
    description: str
    flows: tuple[str, ...]
    states: tuple[str, ...]


NOTICES = (
    Notice("shipway: partial or failed", "A bootstrap, fleet or GPU verification did not end well.", RUNS, BROKEN),
    Notice(
        "shipway: approval is asked for", "A drift repair waits for a yes or no in the UI.", ("drift-repair",), ASKS
    ),
    Notice("shipway: drift is left", "Drift above what is allowed, or a failed repair.", ("drift-repair",), DRIFT_LEFT),
)


def automation(notice: Notice, action: CallWebhook | SendNotification) -> AutomationCore:
    """Return the automation as it is wanted."""
    flows = ResourceSpecification.model_validate(
        {"prefect.resource.role": "flow", "prefect.resource.name": list(notice.flows)}
    )
    trigger = EventTrigger(
        expect={f"prefect.flow-run.{state}" for state in notice.states},
        match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=flows,
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )
    return AutomationCore(name=notice.name, description=notice.description, trigger=trigger, actions=[action])


async def action_for(block: str) -> CallWebhook | SendNotification:
    """Return what calls this block, "type/name"; raises ValueError where the server has none of that name."""
    kind, _, name = block.partition("/")
    async with get_client() as client:
        try:
            document = await client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound as error:
            fix = "make it in the UI (Blocks), or give --webhook-url-file"
            raise ValueError(f"the server has no block {block}: {fix}") from error
    if kind == "webhook":
        return CallWebhook(block_document_id=document.id, payload=PAYLOAD)
    return SendNotification(block_document_id=document.id, subject=SUBJECT, body=BODY)


async def save_webhook(name: str, url: str) -> None:
    """Keep the address in a Webhook block, encrypted by the server: addresses of chat rooms are secrets."""
    await Webhook(method="POST", url=SecretStr(url)).save(name, overwrite=True)


async def apply(block: str, notices: Sequence[Notice] = NOTICES) -> dict[str, Done]:
    """Bring the server's automations to what is wanted, matched by their names; return what was done to each."""
    action = await action_for(block)
    return {notice.name: await _bring(automation(notice, action)) for notice in notices}


async def _bring(wanted: AutomationCore) -> Done:
    async with get_client() as client:
        found = await client.read_automations_by_name(wanted.name)
        for double in found[1:]:
            await client.delete_automation(double.id)
        if not found:
            await client.create_automation(wanted)
            return "created"
        # Whether it is switched on is left to whoever operates the server: a pause in the UI survives this.
        kept = wanted.model_copy(update={"enabled": found[0].enabled})
        if _compared(found[0]) == _compared(kept):
            return "as wanted"
        await client.update_automation(found[0].id, kept)
        return "updated"


def _compared(one: AutomationCore | Automation) -> dict[str, object]:
    """Return what counts of an automation: the server adds ids to triggers."""
    text = one.model_dump(mode="json", include={"name", "description", "enabled", "trigger", "actions"})
    text["trigger"].pop("id", None)
    text["trigger"]["expect"] = sorted(text["trigger"]["expect"])
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 as wanted, 1 refused."""
    parser = argparse.ArgumentParser(prog="python -m deployments.automations", description=__doc__)
    parser.add_argument("--block", default=DEFAULT_BLOCK, help="what is called: webhook/NAME, slack-webhook/NAME, ...")
    parser.add_argument("--webhook-url-file", type=Path, help="make the webhook block with the URL in this file")
    asked = parser.parse_args(arguments)
    try:
        for name, done in asyncio.run(_main(asked)).items():
            sys.stdout.write(f"{name}: {done}\n")
    except (ValueError, OSError, PrefectException) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


async def _main(asked: argparse.Namespace) -> dict[str, Done]:
    if asked.webhook_url_file:
        kind, _, name = asked.block.partition("/")
        if kind != "webhook":
            raise ValueError(f"--webhook-url-file makes a webhook block, not {asked.block}")
        await save_webhook(name, asked.webhook_url_file.read_text(encoding="utf-8").strip())
    return await apply(asked.block)


if __name__ == "__main__":
    raise SystemExit(main())
