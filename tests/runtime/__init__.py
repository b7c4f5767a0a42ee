"""Tests of containerd and what it says of its images."""
