"""Settings of the servers that tests open in their own process, and the keys of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared_context_server.settings import Settings
from tests.postgres import store_settings

API_KEY = "the-ordinary-key-0123456789"
ADMIN_API_KEY = "the-admins-key-0123456789"
JWT_SECRET_KEY = "the-secret-that-signs-tokens-0123456789"
KEYS: dict[str, Any] = {
    "api_key": API_KEY,
    "admin_api_key": ADMIN_API_KEY,
    "jwt_secret_key": JWT_SECRET_KEY,
}


def make_settings(data_dir: Path, **overrides: Any) -> Settings:
    """Settings with keys and the store that is tested, none of them from the environment."""
    return Settings(data_dir=data_dir, **(store_settings(data_dir) | KEYS | overrides))
