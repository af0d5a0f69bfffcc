"""A record that several AI agents keep together, served over MCP and plain HTTP."""

__version__ = "0.1.0"
