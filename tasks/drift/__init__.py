"""Drift: the look, the permission to repair, the repair, and its report."""
