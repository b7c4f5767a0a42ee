"""Backups of a control plane's etcd: the script that its host runs, and what it says of them."""
