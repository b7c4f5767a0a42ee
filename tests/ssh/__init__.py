"""Tests of SSH: real sshds and answers of one."""
