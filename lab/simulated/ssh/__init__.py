"""The one SSH server in front of all simulated hosts, with sshd's limits."""
