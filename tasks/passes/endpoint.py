"""What a run that moves the endpoint was asked for, and what it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shipway.steps.endpoint.balancer import Shown


@dataclass
class EndpointPass:
    """`beside_gpu_pods` lets kubelets be restarted where pods hold GPUs; `was` is the endpoint when the run began.

    `named` are the names in our blocks of /etc/hosts by which the API is asked, `met` is by host what the load balancer
    showed, `shows` is by control plane the certificate that it shows on its own address. `used` says by name
    which objects of others have one that is to go.
    """

    beside_gpu_pods: bool = False
    was: str = ""
    named: set[str] = field(default_factory=set)
    met: dict[str, Shown] = field(default_factory=dict)
    shows: dict[str, str] = field(default_factory=dict)
    used: Mapping[str, str] = field(default_factory=dict)

    @property
    def planes(self) -> dict[str, str]:
        """The control planes by their certificate; several names where these share one, which a person gave them."""
        found: dict[str, list[str]] = {}
        for name, one in sorted(self.shows.items()):
            found.setdefault(one, []).append(name)
        return {one: ", ".join(names) for one, names in found.items()}
