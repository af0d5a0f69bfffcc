"""The fleet in a terminal: what each agent does, and who waits for whom."""
