"""Reads a request's body before the app does, and replays it for the app."""

from __future__ import annotations

from enum import Enum, auto

from starlette.types import Message, Receive


class Unread(Enum):
    """Why a body could not be read."""

    TOO_LARGE = auto()
    DISCONNECTED = auto()


async def read_body(receive: Receive, max_bytes: int) -> bytes | Unread:
    """Read the whole body. If it is larger than `max_bytes`, the rest stays unread."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return Unread.DISCONNECTED
        body += message.get("body", b"")
        if len(body) > max_bytes:
            return Unread.TOO_LARGE
        if not message.get("more_body", False):
            return bytes(body)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """A receive function that returns the body first, and then calls `receive` (for the disconnect)."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
