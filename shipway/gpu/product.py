"""A GPU's product as labels of nodes and the cluster file spell it."""

from __future__ import annotations

import re


def label_product(name: str) -> str:
    """Return a product's name as a label has it (NVIDIA/k8s-device-plugin, internal/lm/resource.go, sanitise)."""
    return "-".join(re.sub(r"[^A-Za-z0-9_. -]", "", name).split())
