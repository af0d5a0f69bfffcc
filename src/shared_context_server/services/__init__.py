"""The services: one function for each use case, called by every surface (MCP, REST, resources)."""
