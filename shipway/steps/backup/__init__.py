"""Steps about backups of a control plane's etcd."""
