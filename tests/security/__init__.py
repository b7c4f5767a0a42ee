"""Tests of secrets, files, keys, hostile input."""
