"""Steps of an upgrade: what forbids it, what is fetched, control planes, nodes, GPU jobs that are waited for."""
