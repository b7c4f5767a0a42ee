"""The driver of a host's GPUs: what forbids to install it, its packages, its module, and what runs beside it."""
