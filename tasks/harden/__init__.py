"""Hardening of a running cluster: keys and files first, then one control plane after the other, Secrets, kubelets."""
