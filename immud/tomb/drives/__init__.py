"""Which drives there are, whose they are, and whether they still are."""
