"""The command lines: `shipway VERB` and `python -m flows.VERB` are one parser and one run for each verb."""
