"""Ids of HTTP requests, which connect an answer with the lines of the log about it.

A client or proxy may send its own id as X-Request-ID; every answer has the header (auth/middleware/request_ids.py).
"""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from typing import Any

from structlog.typing import EventDict

from shared_context_server.errors import InternalError

current_request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the current HTTP request; '' outside of requests."""


def new_request_id() -> str:
    return secrets.token_hex(8)


def name_request(error: InternalError) -> InternalError:
    """Add the id of the current request to an error whose cause only the log shows, and return it.
    Outside of HTTP it gets an id of its own."""
    if "request_id" not in error.details:
        request_id = current_request_id.get() or new_request_id()
        error.details["request_id"] = request_id
        error.message = f"{error.message} The log has its cause under request_id {request_id}."
    return error


def add_request_id(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A processor of structlog: adds the id of the request that the line is about."""
    if "request_id" not in event and (request_id := current_request_id.get()):
        event["request_id"] = request_id
    return event
