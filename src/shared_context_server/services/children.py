"""What the processes have in common that a server starts to work for it."""

from __future__ import annotations

import time
from typing import Any

from pydantic import SecretStr

from shared_context_server.settings import Settings

BACK_OFF_S = (1.0, 60.0)  # the first pause and the longest; each is twice the last


class BackOff:
    """How long no child is started after one has failed. For one thread."""

    def __init__(self) -> None:
        self._pause_s = BACK_OFF_S[0]
        self._ends_at = 0.0

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends_at

    def begin(self) -> float:
        """Begin a pause after a failure, and return its length in seconds."""
        pause_s = self._pause_s
        self._ends_at = time.monotonic() + pause_s
        self._pause_s = min(2 * pause_s, BACK_OFF_S[1])
        return pause_s

    def reset(self) -> None:
        """Let the next pause be the first one: a child has ended well."""
        self._pause_s = BACK_OFF_S[0]


def write_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings for a child as JSON, without keys, since it serves no callers."""
    keys = {name for name, value in settings if isinstance(value, SecretStr)}
    return settings.model_dump(mode="json", exclude=keys)


def read_settings(written: dict[str, Any], **others: Any) -> Settings:
    """Return what write_settings has written, with others in place of some."""
    return Settings.model_validate(written | others)
