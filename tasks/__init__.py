"""The stages: what is brought about where, each a list of steps for a host or the cluster."""
