"""Steps about GPUs: the devices, NVIDIA's toolkit, and the device plugin."""
