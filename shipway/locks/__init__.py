"""One run per cluster: a Lease in its API, and a unit on a host while there is no API."""
