"""Maintenance of the hosts' systems: what is looked at, what forbids it, and a host's turn."""
