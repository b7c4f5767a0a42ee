"""Mutants: each safety rule is taken away once, in a copy of the tree, and a test must fail."""
