"""Who a host belongs to: what is there that tells it, and where that contradicts the cluster file."""
