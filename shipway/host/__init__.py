"""One machine over SSH: sessions, reads, changes, and operations that outlive a lost link."""
