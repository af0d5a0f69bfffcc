"""Prints answers: tables on a terminal, tab-separated lines in a pipe, or JSON."""
