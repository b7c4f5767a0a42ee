"""What goes through the hosts of a cluster in waves: order, a host's turn, the watch, and the report of both."""
