"""How a host joins: as a worker, as a further control plane, and the tokens it does so by."""
