"""The proof with figures: the program that measures GPUs, and how what it measured is judged."""
