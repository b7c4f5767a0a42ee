"""What must be shown on real hosts in containers; `make test-lab` runs it."""
