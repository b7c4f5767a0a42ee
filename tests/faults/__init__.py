"""Every step interrupted: a bootstrap in which one exchange fails, and a plain run after it."""
