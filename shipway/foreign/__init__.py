"""What other programs and libraries write, read without surprises."""
