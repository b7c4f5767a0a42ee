"""The benchmarks: Shipway against the tools people use, on the same hosts in one run. Never part of the test suite."""
