"""The tools: thin, arguments to service to result."""
