"""The nouns of Shipway: clusters, hosts, facts, steps and errors; it knows no workflow engine."""

__version__ = "0.1.0"
