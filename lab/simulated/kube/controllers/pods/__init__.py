"""What the controllers of pods share: how pods are made, get addresses, and run."""
