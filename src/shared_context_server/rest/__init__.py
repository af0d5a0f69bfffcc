"""The HTTP surface: tools, event streams, health checks, metrics and API documentation."""
