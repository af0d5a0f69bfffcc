"""Adapters for agent frameworks. Each needs the extra of the same name."""
