"""Tests: each name is the promise it keeps."""
