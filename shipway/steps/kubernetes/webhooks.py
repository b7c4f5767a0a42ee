"""Webhooks that would refuse evictions, or the pods that are started in their place, while hosts are drained."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from shipway.errors import Refused
from shipway.kube.nodes import few
from shipway.kube.webhooks import Webhook
from shipway.step import Drift


@dataclass(frozen=True)
class WebhooksAnswer:
    """Every webhook that may refuse what a drain needs answers, and comes back where its backends are drained.

    `drains` are the hosts that are drained at once, drain by drain.
    """

    hooks: Collection[Webhook] = field(hash=False)
    drains: Collection[Collection[str]] = field(hash=False)
    name: str = "webhooks answer for what a drain needs"

    async def check(self, on: object) -> Drift | None:
        """Compare. Raises Refused SHW-830 where nobody answers, SHW-831 where one would refuse its own pods."""
        del on
        if not self.drains:
            return None
        if silent := [hook.said for hook in self.hooks if not hook.answers]:
            fix = (
                "Bring the pods of their services back, or delete what is left of them (`kubectl get "
                "validatingwebhookconfigurations,mutatingwebhookconfigurations`); then run again."
            )
            raise Refused(
                f"nobody answers for webhooks, so the API refuses what they guard: {few(silent)}",
                code="SHW-830",
                fix=fix,
            )
        own = [hook.said for hook, _ in gone_with(self.hooks, self.drains) if hook.guards_itself]
        if own:
            fix = (
                "Let a further replica run on a host that is not drained with these, or leave its namespace out of "
                "what it guards (namespaceSelector); then run again."
            )
            message = f"webhooks would refuse their own pods, all of which are drained at once: {few(own)}"
            raise Refused(message, code="SHW-831", fix=fix)
        return None


def gone_with(hooks: Iterable[Webhook], drains: Collection[Collection[str]]) -> list[tuple[Webhook, Collection[str]]]:
    """Return the webhooks for which nobody answers during a drain, each with the hosts that are drained then."""
    return [(hook, hosts) for hook in hooks for hosts in drains if hook.goes_with(hosts)]


def warn_of(hooks: Iterable[Webhook], drains: Collection[Collection[str]]) -> list[str]:
    """Return a sentence for each webhook for which nobody answers during a drain, until its pods run elsewhere."""
    return [
        f"while {', '.join(sorted(hosts))} is drained nobody answers for the webhook {hook.said}: what it guards is "
        "refused until its pods run elsewhere"
        for hook, hosts in gone_with(hooks, drains)
    ]
