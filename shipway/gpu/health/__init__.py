"""What GPUs tell of their own health, and what is to be done about a sick one."""
