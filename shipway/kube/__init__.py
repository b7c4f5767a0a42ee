"""The Kubernetes API: one client, its reads and calls, and what objects say about themselves."""
