"""What NVIDIA's driver and kernel module tell of the health of its GPUs, and what is made of it."""
