"""Tests of hosts that are taken out: the node, the reset of the host, the flows."""
