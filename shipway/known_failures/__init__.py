"""The catalogue of known failures: what their output looks like, cause, fix, and whether to retry."""
