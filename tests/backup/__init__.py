"""Tests of backups: the script with programs of our own in place of etcd's, and the steps that run it."""
