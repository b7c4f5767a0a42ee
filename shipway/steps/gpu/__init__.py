"""Steps about GPUs: the devices and the device plugin of any vendor, and NVIDIA's toolkit."""
