"""Sensor sources: one module for each kind. `registry` lists them."""
