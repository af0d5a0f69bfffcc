"""A server for shared sessions, messages and memory of AI agents, over MCP and plain HTTP."""

__version__ = "0.1.0"
