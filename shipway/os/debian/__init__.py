"""Debian and Ubuntu: apt and dpkg, their files, their locks and their words."""
