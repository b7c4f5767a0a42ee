"""Stand-ins and real programs that tests of several rooms use."""
