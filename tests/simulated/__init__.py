"""Tests of the simulated lab, and what the container lab says of itself."""
