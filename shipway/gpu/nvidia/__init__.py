"""What NVIDIA answers to the questions of shipway/gpu/vendor.py."""
