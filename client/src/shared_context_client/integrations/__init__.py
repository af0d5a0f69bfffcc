"""Adapters for agent frameworks, each behind an extra of the same name."""
