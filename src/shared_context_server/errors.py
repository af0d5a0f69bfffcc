"""Every failure a caller can be told about, as typed leaves of one base.

Each class fixes its wire `code` (stable, clients match on it), its HTTP `status`
and whether the same call may succeed later (`retryable`). Ids travel as attributes
and in `details`; `details["field"]` names the offending argument where there is one.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SharedContextError(Exception):
    """The base of all failures that are part of the contract."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    suggestion: ClassVar[str] = "Try again; if it persists, the server's log has the cause."

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        suggestion: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = suggestion or self.suggestion
        self.details: dict[str, Any] = {"field": field, **details} if field else details

    @property
    def retry_after_s(self) -> int | None:
        """Seconds a client should wait before it tries again; None when waiting does not help."""
        return None

    def body(self) -> dict[str, Any]:
        """The one error shape of every surface."""
        return {
            "success": False,
            "error": self.message,
            "code": self.code,
            "details": self.details,
            "suggestion": self.hint,
            "retryable": self.retryable,
        }


class InternalError(SharedContextError):
    """A defect of ours; the message says nothing of its cause, the log does."""

    retryable = True


class InvalidArgument(SharedContextError):
    """An argument is missing, unknown, of a wrong type or out of range."""

    code = "INVALID_ARGUMENT"
    status = 400
    suggestion = "Correct the argument that details.field names and call again."


class ContentTooLarge(SharedContextError):
    """A text, a value or a whole request body is over its limit."""

    code = "CONTENT_TOO_LARGE"
    status = 413
    suggestion = "Send less: shorten it, or split it into several calls."


class AnswerTooLarge(ContentTooLarge):
    """The calls before this one have used up what one answer may have; this one was not run."""

    retryable = True
    suggestion = (
        "Nothing of this call was done. Send it again in a request of its own, or ask for smaller "
        "pages."
    )

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The answers before this one reach {limit_bytes} bytes, the limit of a batch.",
            limit_bytes=limit_bytes,
        )


class Unauthenticated(SharedContextError):
    """Nobody is calling, or the credential is not valid (any more)."""

    code = "UNAUTHENTICATED"
    status = 401
    suggestion = (
        "Call authenticate_agent(agent_id, api_key), then send auth_token=<token> from its answer "
        "with each call. Or connect with the header 'X-API-Key' (and X-Agent-ID), or with "
        "'Authorization: Bearer <token>'."
    )


class PermissionDenied(SharedContextError):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"
    status = 403
    suggestion = "Ask the session's creator or an admin, or authenticate with more permissions."


class NotFound(SharedContextError):
    """Base of the not-found errors; what a caller may not see is not found either."""

    code = "NOT_FOUND"
    status = 404


class SessionNotFound(NotFound):
    """There is no such session, or the caller may not know of it."""

    code = "SESSION_NOT_FOUND"
    suggestion = "list_sessions shows the sessions you may read."

    def __init__(self, session_id: str) -> None:
        super().__init__(f"No session {session_id!r}.", field="session_id", session_id=session_id)


class MessageNotFound(NotFound):
    """There is no such message in this session, or the caller may not see it."""

    code = "MESSAGE_NOT_FOUND"
    suggestion = "get_messages shows the messages of the session and their ids."

    def __init__(self, message_id: int, *, field: str = "message_id") -> None:
        super().__init__(
            f"No message {message_id} in this session.", field=field, message_id=message_id
        )


class MemoryNotFound(NotFound):
    """There is no entry of this key in this place, or it has expired."""

    code = "MEMORY_NOT_FOUND"
    suggestion = "list_memory shows the keys; check session_id and scope."

    def __init__(self, key: str) -> None:
        super().__init__(f"No memory entry {key!r} here.", field="key", key=key)


class ToolNotFound(NotFound):
    """No tool of this name is served."""

    code = "TOOL_NOT_FOUND"
    suggestion = "tools/list over MCP, or /docs, shows the tools."

    def __init__(self, tool: str, *, question: str = "") -> None:
        """`question` asks whether another tool was meant; it stands before the usual suggestion."""
        hint = f"{question} {self.suggestion}".lstrip()
        super().__init__(f"No tool {tool!r}.", suggestion=hint, tool=tool)


class RouteNotFound(NotFound):
    """Nothing is served at this path."""

    suggestion = "/docs lists what is served; tools are at POST /mcp/tool/{name}, MCP is at /mcp."

    def __init__(self, path: str) -> None:
        super().__init__(f"Nothing is served at {path!r}.", path=path)


class MethodNotAllowed(SharedContextError):
    """The path is served, with other methods; `allowed` are those."""

    code = "METHOD_NOT_ALLOWED"
    status = 405
    suggestion = "Use one of the methods in details.allowed."

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(f"{path!r} does not answer {method}.", path=path, allowed=allowed)


class NotAcceptable(SharedContextError):
    """The Accept header allows none of the forms in which this can be answered."""

    code = "NOT_ACCEPTABLE"
    status = 406
    suggestion = "Send 'Accept: application/json, text/event-stream', or no Accept header."


class UnsupportedMediaType(SharedContextError):
    """The body is declared to be something else than JSON."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    status = 415
    suggestion = "Send JSON with the header 'Content-Type: application/json'."


class MalformedRequest(SharedContextError):
    """The request is not HTTP as this server speaks it, or can be read in two ways."""

    code = "MALFORMED_REQUEST"
    status = 400
    suggestion = "Send HTTP/1.1 through a common client library; details.reason says what is wrong."

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request cannot be read: {reason}.", reason=reason)


class RequestTimeout(SharedContextError):
    """The client began a request and did not send the rest of it in time."""

    code = "REQUEST_TIMEOUT"
    status = 408
    retryable = True
    suggestion = "Send the whole request at once on a new connection."


class TargetTooLong(SharedContextError):
    """The request's target, which is its path and query, is over its limit."""

    code = "TARGET_TOO_LONG"
    status = 414
    suggestion = "Send what is long in the body of a POST."


class HeadersTooLarge(SharedContextError):
    """The request has too many header lines, or too many bytes of them."""

    code = "HEADERS_TOO_LARGE"
    status = 431
    suggestion = "Send fewer and shorter headers."


class InvalidMessage(SharedContextError):
    """The body is not one JSON-RPC 2.0 message."""

    code = "INVALID_MESSAGE"
    status = 400
    suggestion = 'Send one object: {"jsonrpc": "2.0", "id": …, "method": "…", "params": {…}}.'


class McpSessionNotFound(NotFound):
    """The Mcp-Session-Id that would name the caller is none that this server has given."""

    code = "MCP_SESSION_NOT_FOUND"
    suggestion = "Send initialize again: its answer carries a new one. X-Agent-ID names you too."


class Conflict(SharedContextError):
    """The thing is in another state than the call expects; details tell which."""

    code = "CONFLICT"
    status = 409
    suggestion = "Read the current state (it is in details), then decide and call again."


class CursorLost(SharedContextError):
    """What the reader's cursor points behind is not in the log (any more).

    Either the log ends before it, or the store has been set back to an earlier state while the
    reader was reading: what stands behind the cursor now may not be what the reader has read.
    """

    code = "CURSOR_LOST"
    status = 409
    suggestion = (
        "The store was set back to an earlier state, or this cursor is of another log. Read again "
        "without a cursor, or from after_seq=0, and mind what is not there any more."
    )

    def __init__(self, cursor: int, *, field: str = "after_seq", is_beyond: bool = True) -> None:
        reason = (
            f"The log ends before {cursor}."
            if is_beyond
            else f"The log was set back to an earlier state while it was followed behind {cursor}."
        )
        super().__init__(reason, field=field, cursor=cursor)


class SessionClosed(SharedContextError):
    """The session is closed: it can be read and not written."""

    code = "SESSION_CLOSED"
    status = 409
    suggestion = "Create a new session, or write to another one."

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"Session {session_id!r} is closed.", field="session_id", session_id=session_id
        )


class LeaseLost(SharedContextError):
    """The lease that a write requires is not held by the caller with this token (any more).

    `holder` and `current_token` are those of whoever holds it now, None when it is free, and when
    the caller may not know (`is_told` false).
    """

    code = "LEASE_LOST"
    status = 409
    suggestion = "Read what has changed since, acquire the lease again, and use its new token."

    def __init__(
        self,
        lease: str,
        *,
        holder: str | None = None,
        current_token: int | None = None,
        is_told: bool = True,
    ) -> None:
        if not is_told:
            holder = current_token = None
        now_held_by = ": nobody holds it" if holder is None else f": held by {holder!r}"
        super().__init__(
            f"The lease {lease!r} is not yours with this token{now_held_by if is_told else ''}.",
            field="fencing_token",
            lease=lease,
            holder=holder,
            current_token=current_token,
        )


class RateLimited(SharedContextError):
    """The caller has sent more calls, or holds more streams or connections, than a limit allows."""

    code = "RATE_LIMITED"
    status = 429
    retryable = True
    suggestion = "Wait retry_after_s seconds, then call again; batch calls where you can."

    def __init__(self, retry_after_s: int, message: str = "Too many calls.") -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self._retry_after_s = retry_after_s

    @property
    def retry_after_s(self) -> int:
        return self._retry_after_s


class Unavailable(SharedContextError):
    """The storage does not answer just now; a write was made wholly or not at all."""

    code = "UNAVAILABLE"
    status = 503
    retryable = True
    suggestion = "Try again in a moment; use an idempotency_key so that a retry never doubles."

    def __init__(self, message: str = "The storage does not answer.", *, wait_s: int = 1) -> None:
        super().__init__(message)
        self._wait_s = wait_s

    @property
    def retry_after_s(self) -> int:
        return self._wait_s


class StorageDamaged(SharedContextError):
    """What is stored cannot be read: the database file is damaged. Nothing was written."""

    code = "STORAGE_DAMAGED"
    status = 500
    suggestion = (
        "Do not repeat the call. Tell whoever runs the server: the database is damaged, its log has "
        "the cause, and a backup can be put back with `scs restore`."
    )

    def __init__(self) -> None:
        super().__init__("The storage is damaged.")


class ClockNotRunning(SharedContextError):
    """No clock daemon has written what was asked for; `details.command` starts one."""

    code = "CLOCK_NOT_RUNNING"
    status = 503
    retryable = True

    def __init__(self, message: str, *, command: str) -> None:
        suggestion = f"On the server's machine run: {command} (or serve with --with-clock)"
        super().__init__(message, suggestion=suggestion, command=command)

    @property
    def retry_after_s(self) -> int:
        return 5  # somebody has to start it


class ConfigurationError(Exception):
    """The server cannot start as it is configured; the message says what to change."""


class CopyError(Exception):
    """Data cannot be moved from one store to another; the message says why and what to do."""
