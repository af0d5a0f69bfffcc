"""The settings of a server that is measured inside a process of the benchmark's own."""

from __future__ import annotations

from pathlib import Path

from bench.keys import API_KEY
from shared_context_server.settings import Settings


def bench_settings(data_dir: Path) -> Settings:
    """Defaults, but for fixed keys and no rate limit: twenty connections of one agent would meet it."""
    return Settings(
        data_dir=data_dir,
        api_key=API_KEY,
        admin_api_key="bench-admin-key-0123456789abcdef",
        jwt_secret_key="bench-jwt-secret-0123456789abcdef0123456789",
        rate_limit="off",
        failed_auth_limit="off",
    )
