"""Tests of whose a host is."""
