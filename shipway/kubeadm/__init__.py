"""kubeadm: the configuration it is given, and what it writes for it."""
