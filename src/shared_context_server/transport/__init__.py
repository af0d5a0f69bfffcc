"""Checks and fast paths in front of the MCP SDK's transports, streamable HTTP and stdio."""
