"""An upgrade: what forbids it, the order in which hosts come, the stages, and how such a run is judged."""
