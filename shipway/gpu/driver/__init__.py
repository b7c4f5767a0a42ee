"""What is known of NVIDIA's drivers: which GPUs each drives, and what its packages are called where."""
