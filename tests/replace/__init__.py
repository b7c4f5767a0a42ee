"""Another machine in a host's place."""
