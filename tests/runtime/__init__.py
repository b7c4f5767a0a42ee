"""Tests of containerd and what is told of its images."""
