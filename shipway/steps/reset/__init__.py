"""Steps that take Kubernetes, and what a bootstrap wrote, off a host again; whatever is not provably ours stays."""
