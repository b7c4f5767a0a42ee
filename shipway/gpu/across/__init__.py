"""Collectives across hosts: whose fault it is when they are slow."""
