"""Maintenance of a host's system: what forbids a restart of it, and the restart itself."""
