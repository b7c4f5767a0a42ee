"""Steps about containerd, its images and its registries."""
