"""What is ours in front of the MCP SDK's transports, streamable HTTP and stdio."""
