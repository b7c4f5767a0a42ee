"""The compose layout started by hand, and looked at with a real browser: `make test-ui`."""
