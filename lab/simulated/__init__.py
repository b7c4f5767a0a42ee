"""Simulated hosts and a simulated Kubernetes API behind real SSH and TLS servers."""
