"""What a cluster file may not ask for, what deserves a warning, and which versions fit together."""
