"""Backups: their stages, and how such a run is judged."""
