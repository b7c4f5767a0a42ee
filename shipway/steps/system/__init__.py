"""Steps about the base system: packages, files, kernel, services, sources."""
