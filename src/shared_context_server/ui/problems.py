"""Errors as the dashboard shows them: a page, or a part of one, that says what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from shared_context_server.errors import (
    NotFound,
    RouteNotFound,
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
        elif isinstance(error, NotFound):
            hint = _NOT_FOUND_HINT
        elif isinstance(error, Unauthenticated):
            hint = _SIGN_IN_HINT
        return cls(error.status, error.code, message, hint, error.retry_after_s)


class CallFailed(Exception):
    """A tool that a page called has answered with an error."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after_s: int | None) -> None:
        super().__init__(body["code"])
        self.problem = Problem(
            status, str(body["code"]), str(body["error"]), str(body["suggestion"]), retry_after_s
        )
