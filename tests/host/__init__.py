"""Tests of a host: files, edits, commands, swap, clocks."""
