"""Certificates: looked at, renewed one control plane at a time, and proven by what is served."""
