"""What a run that moves the endpoint was asked for, and what it has seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EndpointPass:
    """`beside_gpu_pods` lets kubelets be restarted where pods hold GPUs; `was` is the endpoint when the run began."""

    beside_gpu_pods: bool = False
    was: str = ""
