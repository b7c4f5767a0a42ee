"""A running cluster's endpoint moved to a name: looked at, allowed, brought to every place, proven."""
