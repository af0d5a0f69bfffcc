"""Errors as the dashboard shows them: a page, or a part of one, that says what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from shared_context_server.errors import (
    InvalidArgument,
    NotFound,
    RouteNotFound,
    SessionClosed,
    SharedContextError,
    Unauthenticated,
)

_TITLES = {
    400: "That did not work",
    401: "Please sign in",
    403: "Not allowed",
    404: "Not found",
    409: "Something has changed",
    413: "Too much at once",
    429: "Too many requests",
    500: "The server failed",
    503: "Not available right now",
}
_NOT_FOUND_HINT = (
    "It may have been deleted, or your credential may not see it. Check the address, or go back to "
    "the list."
)
_ARGUMENT_HINT = "Correct it in the form or in the address."
_CLOSED_HINT = (
    "It can be read, but nothing can be added to it any more. Its agents need a new session."
)
_SIGN_IN_HINT = "Sign in with a key, or with the link that `scs ui` prints on the server's machine."


@dataclass(frozen=True, slots=True)
class Problem:
    """An error with what a person needs to go on."""

    status: int
    code: str
    message: str
    hint: str
    retry_after_s: int | None = None

    @property
    def title(self) -> str:
        return _TITLES.get(self.status) or HTTPStatus(self.status).phrase

    @classmethod
    def of(cls, error: SharedContextError) -> Problem:
        """Return the problem of an error. Hints that tell agents what to call are put into the words of
        the dashboard."""
        message, hint = error.message, error.hint
        if isinstance(error, RouteNotFound):
            message, hint = "There is no page at this address.", "Check it, or choose a page."
        else:
            hint = _to_hint(error.status, error.code, hint)
        if error.details.get("field") == "cursor":
            hint = "Begin with the first page again."
        return cls(error.status, error.code, message, hint, error.retry_after_s)


def _to_hint(status: int, code: str, hint: str) -> str:
    """Return what a person can do about an error, whose own hint tells agents what to call."""
    if status == NotFound.status:
        return _NOT_FOUND_HINT
    if code == Unauthenticated.code:
        return _SIGN_IN_HINT
    if code == SessionClosed.code:
        return _CLOSED_HINT
    return _ARGUMENT_HINT if hint == InvalidArgument.suggestion else hint


class CallFailed(Exception):
    """A tool that a page called has answered with an error."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after_s: int | None) -> None:
        super().__init__(body["code"])
        code = str(body["code"])
        hint = _to_hint(status, code, str(body["suggestion"]))
        self.problem = Problem(status, code, str(body["error"]), hint, retry_after_s)
