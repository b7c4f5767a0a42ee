"""The proof with figures: what GPUs reach is measured, judged, and kept for the next time."""
