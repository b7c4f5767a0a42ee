"""Tests of drift: the look, the permission, the repair."""
