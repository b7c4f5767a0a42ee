"""The cluster file: its model, its text, its faults, and the profiles that it is laid over."""
