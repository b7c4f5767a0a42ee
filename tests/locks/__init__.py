"""Tests of one run per cluster."""
