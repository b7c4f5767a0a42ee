"""What serves the making of Shipway and is no part of it."""
