"""Hand the settings of a server to a process that it starts: without keys, as it serves no callers."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from shared_context_server.settings import Settings


def write_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON, without keys."""
    keys = {name for name, value in settings if isinstance(value, SecretStr)}
    return settings.model_dump(mode="json", exclude=keys)


def read_settings(written: dict[str, Any], **others: Any) -> Settings:
    """Return what write_settings has written, with others in place of some."""
    return Settings.model_validate(written | others)
