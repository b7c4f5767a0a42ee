"""Edits of files that others own too: only our own lines, keys and entries change."""
