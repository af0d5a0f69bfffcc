"""Interpret HTTP responses and network errors."""

from __future__ import annotations

import email.utils
import json
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from shared_context_client._generated.errors import BY_CODE, ClockNotRunning, RateLimited
from shared_context_client.errors import ServerUnavailable, SharedContextError, UnexpectedAnswer
from shared_context_client.wire import Record

R = TypeVar("R", bound=Record)

AWAY = frozenset({502, 503, 504})
MAX_SHOWN_CHARS = 200


def read_result(content: bytes, result: type[R]) -> R:
    """Parse a result. Raises UnexpectedAnswer if the content is something else."""
    try:
        return result.model_validate_json(content)
    except ValidationError as exc:
        raise _unexpected(content, 200) from exc


def error_of(response: httpx.Response) -> SharedContextError:
    """Return the error that a response other than 200 means. Its body must have been read."""
    retry_after_s = read_retry_after(response.headers.get("Retry-After"))
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("code"), str):
        return error_of_body(body, response.status_code, retry_after_s)
    # Not from the server but from a proxy, which may have passed the call on.
    if response.status_code in AWAY:
        return ServerUnavailable(
            f"HTTP {response.status_code} from what stands before the server.",
            status=response.status_code,
            retry_after_s=retry_after_s,
            is_outcome_unknown=True,
        )
    if response.status_code == RateLimited.default_status:
        return RateLimited("Too many calls.", retry_after_s=retry_after_s)
    return _unexpected(response.content, response.status_code)


def error_of_body(
    body: dict[str, Any], status: int, retry_after_s: float | None = None
) -> SharedContextError:
    """Return the exception for the server's error body. An unknown code is kept in the base class."""
    kind = BY_CODE.get(body["code"], SharedContextError)
    details = body.get("details")
    return kind(
        str(body.get("error", "")),
        code=body["code"],
        details=details if isinstance(details, dict) else {},
        suggestion=str(body.get("suggestion") or ""),
        retryable=bool(body.get("retryable", False)),
        status=status,
        retry_after_s=retry_after_s,
        is_outcome_unknown=status == 500,
    )


def error_of_network(exc: httpx.RequestError) -> ServerUnavailable:
    """Return the exception for a failed connection."""
    # Without a connection nothing was sent.
    is_unsent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    reason = str(exc) or type(exc).__name__
    url = exc.request.url
    origin = f"{url.scheme}://{url.netloc.decode()}"  # without user name and password
    return ServerUnavailable(f"No answer: {reason} ({origin}).", is_outcome_unknown=not is_unsent)


def is_away(error: SharedContextError) -> bool:
    """Whether the error counts as "no answer" for the circuit breaker."""
    if isinstance(error, ClockNotRunning):
        return False
    return isinstance(error, ServerUnavailable) or error.status in AWAY


def is_worth_repeating(error: SharedContextError, *, may_repeat: bool) -> bool:
    """Whether to send the same call again. `may_repeat`: the call is idempotent."""
    # The clock daemon has to be started by a person, so waiting does not help.
    if not error.retryable or isinstance(error, ClockNotRunning):
        return False
    return may_repeat or not error.is_outcome_unknown


def read_retry_after(value: str | None) -> float | None:
    """Return seconds, from seconds or an HTTP date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _unexpected(content: bytes, status: int) -> UnexpectedAnswer:
    shown = content[:MAX_SHOWN_CHARS].decode(errors="replace")
    return UnexpectedAnswer(
        f"HTTP {status} with something that is not a Shared Context Server's answer: {shown!r}.",
        status=status,
    )
