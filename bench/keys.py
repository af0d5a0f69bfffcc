"""The keys of servers that are started to be measured."""

from __future__ import annotations

API_KEY = "bench-api-key-0123456789abcdef"
