"""Steps about Kubernetes: init, join, nodes, objects, and the health of what runs."""
