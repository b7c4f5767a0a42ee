"""The first look at hosts: what each tells, and what shows only when they are compared."""
