"""Benchmarks: each starts its own server and prints ratios against a baseline of the same run."""
