"""Telling those who wait that something was committed."""
