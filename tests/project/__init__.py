"""Tests of the project itself: documentation, language, mutants."""
