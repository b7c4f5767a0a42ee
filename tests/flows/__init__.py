"""Tests of flows, tasks, the command line, deployments."""
