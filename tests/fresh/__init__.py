"""What a person has who has nothing yet: the lock, the wheel, the README's commands on fresh systems."""
