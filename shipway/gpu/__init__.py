"""GPUs in pods: the proof that pods hold them, and what is wrong where they do not."""
