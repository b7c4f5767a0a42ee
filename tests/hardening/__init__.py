"""Hardening: what is declared, what it changes, what it refuses, and how each change ends."""
