"""What a control plane's own API server answers: not the one that an endpoint leads to."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.facts.commands import Says
from shipway.foreign.addresses import in_url
from shipway.kube.access import ADMIN_CONF


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A host's own API server: its address as nodes know it, and its port."""

    address: str
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://{in_url(self.address)}:{self.port}"

    def get(self, *words: str) -> Says:
        """Return the fact of what `kubectl get` prints by it, with the administrator's right."""
        own = ("kubectl", "--kubeconfig", ADMIN_CONF, "--server", self.url, "--request-timeout=8s")
        return Says((*own, "get", *words))
