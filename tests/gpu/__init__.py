"""Tests of GPUs: counts, links, isolation, the proof."""
