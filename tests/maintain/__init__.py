"""Maintenance of the hosts' systems."""
