"""Prefect's API: the one a person set, or one that is started beside a run."""
