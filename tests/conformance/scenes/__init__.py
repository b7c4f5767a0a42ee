"""The scenes of the suite: on the hosts, on the cluster, and what befalls the machine."""
