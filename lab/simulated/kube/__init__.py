"""A simulated Kubernetes API server with the controllers, scheduler and kubelets behind it."""

from .cluster import Cluster
from .faults import Fault
from .hosts import SimpleHost
from .joining import JoinRefusedError
from .latencies import Latencies
from .world import ClusterConfig

__all__ = ["Cluster", "ClusterConfig", "Fault", "JoinRefusedError", "Latencies", "SimpleHost"]
