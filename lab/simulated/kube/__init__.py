"""A simulated Kubernetes API server with the controllers, scheduler and kubelets behind it."""
