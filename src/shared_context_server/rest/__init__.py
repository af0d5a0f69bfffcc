"""The tools over plain HTTP, and what operators and clients read about the server."""
