"""Tests of the cluster file: model, faults, profiles, rules."""
