"""The operating system's packages: the only package that knows how a distribution keeps them."""
