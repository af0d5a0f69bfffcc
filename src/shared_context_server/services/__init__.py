"""Use cases: one function each, the same for every surface."""
