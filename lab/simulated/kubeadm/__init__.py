"""kubeadm of a simulated host: what it reads, checks, writes and says."""
