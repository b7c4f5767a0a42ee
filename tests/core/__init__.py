"""Tests of what everything uses: converge, errors, the catalogue, properties."""
