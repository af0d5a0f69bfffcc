"""Read what a client says on stdin about the event for which it runs a hook."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from dataclasses import dataclass

READ_S = 1.0  # for all of it; the client writes it at once
MAX_BYTES = 32 * 1024 * 1024
_STDIN = 0
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """Both are "" if the hook was not run by a client."""

    name: str = ""
    session_id: str = ""


def read_client_event() -> ClientEvent:
    """Read stdin to its end, for at most READ_S. Claude Code, Codex and Gemini CLI write JSON."""
    if sys.stdin is None or sys.stdin.isatty():
        return ClientEvent()
    said = bytearray()
    deadline = time.monotonic() + READ_S
    while select.select([_STDIN], [], [], max(0, deadline - time.monotonic()))[0]:
        chunk = os.read(_STDIN, _CHUNK_BYTES)
        if not chunk or len(said) > MAX_BYTES:
            break
        said += chunk
    try:
        given = json.loads(said)
        name, session_id = given.get("hook_event_name", ""), given.get("session_id", "")
    except (ValueError, AttributeError):
        return ClientEvent()
    return ClientEvent(str(name), str(session_id))
