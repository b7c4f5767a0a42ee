"""The endpoint of a running cluster, moved from an address to a name: each place that names it."""
