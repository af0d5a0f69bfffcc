"""The official MCP conformance suite against a server of our composition: make test-conformance."""
