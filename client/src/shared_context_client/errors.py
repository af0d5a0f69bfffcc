"""The exceptions that calls raise. Those for error codes of the server are in `_generated.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class SharedContextError(Exception):
    """The base class of all errors of this client.

    `code` is stable: compare with it, or catch the class. `details["field"]` names the argument at
    fault. `retryable`: the same call may succeed later. `status`: the HTTP status, None if there
    was no answer. `retry_after_s`: how many seconds the server asks to wait, None if it does not
    say. `is_outcome_unknown`: the call may have been carried out.
    """

    code: str = "INTERNAL_ERROR"
    default_status: ClassVar[int | None] = None
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        suggestion: str = "",
        retryable: bool | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        is_outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.details: dict[str, Any] = dict(details or {})
        self.suggestion = suggestion
        self.retryable = self.default_retryable if retryable is None else retryable
        self.status = self.default_status if status is None else status
        self.retry_after_s = retry_after_s
        self.is_outcome_unknown = is_outcome_unknown

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        return f"{text} {self.suggestion}" if self.suggestion else text


class ServerUnavailable(SharedContextError):
    """The server does not answer, or answers that it is unavailable."""

    code = "SERVER_UNAVAILABLE"
    default_retryable = True


class CircuitOpen(ServerUnavailable):
    """The server has not answered lately, so the call was not sent. `retry_after_s`: when to try
    again."""

    code = "CIRCUIT_OPEN"


class UnexpectedAnswer(SharedContextError):
    """The answer is not from a Shared Context Server of a known version."""

    code = "UNEXPECTED_ANSWER"


class LeaseHeld(SharedContextError):
    """Another agent holds the lease; `details` has its `holder` and `expires_at`."""

    code = "LEASE_HELD"
    default_retryable = True


class OutboxFull(SharedContextError):
    """The outbox is full; this write was not accepted."""

    code = "OUTBOX_FULL"
    default_retryable = True


class NotSent(SharedContextError):
    """A batch or an outbox ended before this call was sent; it was not carried out."""

    code = "NOT_SENT"
