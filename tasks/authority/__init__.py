"""The rotation of the cluster's CA: what forbids it, and its stages."""
