"""Hosts that are taken out: what forbids it, the node's way out of the cluster, and the reset of its host."""
