"""The tools: thin functions that pass arguments to a service and return its result."""
