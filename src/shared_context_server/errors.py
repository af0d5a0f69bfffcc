"""All errors that a caller can get, as subclasses of SharedContextError.

Each class has a `code` (stable: clients compare it), an HTTP `status`, and whether the same call may
succeed later (`retryable`). `details` has the ids; `details["field"]` names the wrong argument.
"""

from __future__ import annotations

from typing import Any, ClassVar

STORAGE_FULL_WAIT_S = 30  # somebody has to make room


class SharedContextError(Exception):
    """Base class of all errors that callers can get."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    suggestion: ClassVar[str] = "Try again. If it fails again, see the server's log for the cause."
    limit: str = ""
    """The limit that was reached, as the metric names it; '' if none, or if it is counted where the
    error is raised."""

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

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is: the arguments of a subclass differ from those of an exception.
        return _restore, (type(self), self.args, self.__dict__)

    @property
    def retry_after_s(self) -> int | None:
        """Seconds to wait before another attempt; None if waiting does not help."""
        return None

    def body(self) -> dict[str, Any]:
        """The error as JSON, the same on all surfaces."""
        return {
            "success": False,
            "error": self.message,
            "code": self.code,
            "details": self.details,
            "suggestion": self.hint,
            "retryable": self.retryable,
        }


def _restore(
    kind: type[SharedContextError], arguments: tuple[Any, ...], attributes: dict[str, Any]
) -> SharedContextError:
    """Return an error as another process has raised it."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class InternalError(SharedContextError):
    """An error in the server. Only its log shows the cause."""

    retryable = True


class InvalidArgument(SharedContextError):
    """An argument is missing, unknown, of the wrong type or out of range."""

    code = "INVALID_ARGUMENT"
    status = 400
    suggestion = "Correct the argument that details.field names and call again."


class ContentTooLarge(SharedContextError):
    """A text, a value or a request body is larger than its limit."""

    code = "CONTENT_TOO_LARGE"
    status = 413
    suggestion = "Send less: shorten it, or split it into several calls."
    limit = "size"


class AnswerTooLarge(ContentTooLarge):
    """The answers to earlier calls of the batch reached the size limit; this call was not run."""

    retryable = True
    suggestion = "This call was not run. Send it again in a separate request, or use smaller pages."

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The earlier answers of this batch reached the limit of {limit_bytes} bytes.",
            limit_bytes=limit_bytes,
        )


class Unauthenticated(SharedContextError):
    """The request has no credential, or one that is not valid (any more)."""

    code = "UNAUTHENTICATED"
    status = 401
    suggestion = (
        "Call authenticate_agent(agent_id, api_key), then send auth_token=<token> from its answer "
        "with each call. Or connect with the header 'X-API-Key' (and X-Agent-ID), or with "
        "'Authorization: Bearer <token>'."
    )


class PermissionDenied(SharedContextError):
    """The caller is authenticated but may not do this."""

    code = "PERMISSION_DENIED"
    status = 403
    suggestion = "Ask the session's creator or an admin, or authenticate with more permissions."


class CrossSiteRequest(PermissionDenied):
    """On the dashboard: a form or script of another site has sent the request, or the page is older
    than the sign-in."""

    code = "CROSS_SITE_REQUEST"
    suggestion = "Go back to the page, load it again, and repeat what you did."


class NotFound(SharedContextError):
    """There is no such thing, or the caller may not see it."""

    code = "NOT_FOUND"
    status = 404


class SessionNotFound(NotFound):
    """The session does not exist, or the caller may not see it."""

    code = "SESSION_NOT_FOUND"
    suggestion = "list_sessions shows the sessions you may read."

    def __init__(self, session_id: str, *, field: str = "session_id") -> None:
        super().__init__(f"There is no session {session_id!r}.", field=field, session_id=session_id)


class MessageNotFound(NotFound):
    """The message does not exist in this session, or the caller may not see it."""

    code = "MESSAGE_NOT_FOUND"
    suggestion = "get_messages shows the messages of the session and their ids."

    def __init__(self, message_id: int, *, field: str = "message_id") -> None:
        super().__init__(
            f"This session has no message {message_id}.", field=field, message_id=message_id
        )


class MemoryNotFound(NotFound):
    """There is no memory entry with this key, session and scope, or it has expired."""

    code = "MEMORY_NOT_FOUND"
    suggestion = "Check session_id and scope; list_memory shows the keys."

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no memory entry {key!r}.", field="key", key=key)


class TaskNotFound(NotFound):
    """The session has no task with this id."""

    code = "TASK_NOT_FOUND"
    suggestion = "list_tasks shows the tasks of the session and their ids."

    def __init__(self, task_id: int, *, field: str = "task_id") -> None:
        super().__init__(f"This session has no task {task_id}.", field=field, task_id=task_id)


class ToolNotFound(NotFound):
    """There is no tool with this name."""

    code = "TOOL_NOT_FOUND"
    suggestion = "tools/list over MCP, or /docs, shows the tools."

    def __init__(self, tool: str, *, question: str = "") -> None:
        """`question` asks whether another tool was meant. It is put before the suggestion."""
        hint = f"{question} {self.suggestion}".lstrip()
        super().__init__(f"There is no tool {tool!r}.", suggestion=hint, tool=tool)


class RouteNotFound(NotFound):
    """There is no route for this path."""

    suggestion = "/docs lists all routes; tools are at POST /mcp/tool/{name}, MCP is at /mcp."

    def __init__(self, path: str) -> None:
        super().__init__(f"There is no route {path!r}.", path=path)


class MethodNotAllowed(SharedContextError):
    """The route has other methods, which are in `allowed`."""

    code = "METHOD_NOT_ALLOWED"
    status = 405
    suggestion = "Use one of the methods in details.allowed."

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(f"{path!r} does not support {method}.", path=path, allowed=allowed)


class NotAcceptable(SharedContextError):
    """The Accept header allows none of the available media types."""

    code = "NOT_ACCEPTABLE"
    status = 406
    suggestion = "Send 'Accept: application/json, text/event-stream', or no Accept header."


class UnsupportedMediaType(SharedContextError):
    """The content type of the body is not JSON."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    status = 415
    suggestion = "Send JSON with the header 'Content-Type: application/json'."


class MalformedRequest(SharedContextError):
    """The request is not valid HTTP/1.1, or it is ambiguous."""

    code = "MALFORMED_REQUEST"
    status = 400
    suggestion = "Use a common HTTP/1.1 library; details.reason says what is wrong."

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request cannot be read: {reason}.", reason=reason)


class RequestTimeout(SharedContextError):
    """The client did not send the whole request in time."""

    code = "REQUEST_TIMEOUT"
    status = 408
    retryable = True
    suggestion = "Send the whole request at once on a new connection."


class TargetTooLong(SharedContextError):
    """The request target, which is its path and query, is longer than its limit."""

    code = "TARGET_TOO_LONG"
    status = 414
    suggestion = "Send long values in the body of a POST."


class HeadersTooLarge(SharedContextError):
    """The request has too many header lines, or they are too long."""

    code = "HEADERS_TOO_LARGE"
    status = 431
    suggestion = "Send fewer and shorter headers."


class InvalidMessage(SharedContextError):
    """The body is not one JSON-RPC 2.0 message."""

    code = "INVALID_MESSAGE"
    status = 400
    suggestion = 'Send one object: {"jsonrpc": "2.0", "id": …, "method": "…", "params": {…}}.'


class McpSessionNotFound(NotFound):
    """This server did not issue the Mcp-Session-Id that should name the caller."""

    code = "MCP_SESSION_NOT_FOUND"
    suggestion = "Send initialize again to get a new id, or name your agent with X-Agent-ID."


class Conflict(SharedContextError):
    """The current state differs from what the call expects. It is in the details."""

    code = "CONFLICT"
    status = 409
    suggestion = "Read the current state in details, then decide and call again."


class CursorLost(SharedContextError):
    """The reader's cursor does not belong to the current log.

    Either the log ends before the cursor, or the store was restored to an earlier state while the
    reader was reading. Then the messages up to the cursor may not be those that the reader has read.
    """

    code = "CURSOR_LOST"
    status = 409
    suggestion = (
        "The store was restored to an earlier state, or the cursor is of another log. Read again "
        "without a cursor, or from 0. Messages that you have read may be missing now."
    )

    def __init__(
        self,
        cursor: int,
        *,
        field: str = "after_seq",
        session_id: str | None = None,
        is_beyond: bool = True,
    ) -> None:
        """`session_id` says which log it is when the call has a cursor for each of several."""
        log, session = "The log", {}
        if session_id is not None:
            log, session = f"The log of session {session_id!r}", {"session_id": session_id}
        reason = (
            f"{log} ends before {cursor}."
            if is_beyond
            else f"{log} was restored to an earlier state while it was read from {cursor} on."
        )
        super().__init__(reason, field=field, cursor=cursor, **session)


class SessionClosed(SharedContextError):
    """The session is closed, so it is read-only."""

    code = "SESSION_CLOSED"
    status = 409
    suggestion = "Create a new session, or write to another one."

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"Session {session_id!r} is closed.", field="session_id", session_id=session_id
        )


class LeaseLost(SharedContextError):
    """The caller does not hold the lease of a write with this token (any more).

    `holder` and `current_token` are the current ones. They are None if the lease is free, or if the
    caller may not see them (`is_told` false). `instance` is the thread of the holder, "" if it named
    none.
    """

    code = "LEASE_LOST"
    status = 409
    suggestion = "Read what has changed since, acquire the lease again, and use its new token."

    def __init__(
        self,
        lease: str,
        *,
        holder: str | None = None,
        instance: str = "",
        current_token: int | None = None,
        is_told: bool = True,
        suggestion: str | None = None,
    ) -> None:
        if not is_told:
            holder = current_token = None
        thread = f" in {instance!r}" if instance else ""
        now_held_by = ": nobody holds it" if holder is None else f": {holder!r} holds it{thread}"
        super().__init__(
            f"You do not hold the lease {lease!r} with this token{now_held_by if is_told else ''}.",
            field="fencing_token",
            suggestion=suggestion,
            lease=lease,
            holder=holder,
            current_token=current_token,
        )


class RateLimited(SharedContextError):
    """The caller has reached a limit of calls, streams or connections."""

    code = "RATE_LIMITED"
    status = 429
    retryable = True
    suggestion = "Wait retry_after_s seconds, then call again. Use batches for many calls."

    def __init__(self, retry_after_s: int, message: str = "Too many calls.") -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self._retry_after_s = retry_after_s

    @property
    def retry_after_s(self) -> int:
        return self._retry_after_s


class QuotaExceeded(SharedContextError):
    """A session or an agent has as much stored as it may. `details` names the limit and its maximum,
    and `used`, how much the agent has stored, if the limit is the agent's."""

    code = "QUOTA_EXCEEDED"
    status = 409
    suggestion = (
        "Delete what nobody needs (delete_memory, delete_session), use another session, or ask the "
        "operator of the server to raise the setting of details.limit."
    )

    def __init__(
        self, message: str, *, limit: str, maximum: int, left: int, used: int | None = None
    ) -> None:
        """`left` is for the server: how much may still be added. Callers are not told."""
        details: dict[str, Any] = {} if used is None else {"used": used}
        super().__init__(message, limit=limit, maximum=maximum, **details)
        self.limit = limit
        self.left = left


class Unavailable(SharedContextError):
    """The storage does not answer at the moment. A write was made completely or not at all."""

    code = "UNAVAILABLE"
    status = 503
    retryable = True
    suggestion = "Try again later, with an idempotency_key so that a write is not made twice."

    def __init__(self, message: str = "The storage does not answer.", *, wait_s: int = 1) -> None:
        super().__init__(message)
        self._wait_s = wait_s

    @property
    def retry_after_s(self) -> int:
        return self._wait_s


class StorageFull(Unavailable):
    """Only its reserve is left on the disk of the storage. Nothing was written. Reading and deleting
    still work. A disk that is full is UNAVAILABLE."""

    code = "STORAGE_FULL"
    suggestion = (
        "Delete what nobody needs (delete_session, delete_memory), or ask the operator of the server "
        "to make room. Then call again with the same idempotency_key."
    )
    limit = "disk"

    def __init__(self, message: str) -> None:
        super().__init__(message, wait_s=STORAGE_FULL_WAIT_S)


class StorageDamaged(SharedContextError):
    """The database file is damaged and cannot be read. Nothing was written."""

    code = "STORAGE_DAMAGED"
    status = 500
    suggestion = (
        "Do not repeat the call. Tell the operator of the server that the database is damaged: the "
        "log has the cause, and `scs restore` restores a backup."
    )

    def __init__(self) -> None:
        super().__init__("The storage is damaged.")


class ClockNotRunning(SharedContextError):
    """There is no data from a clock daemon. `details.command` starts one."""

    code = "CLOCK_NOT_RUNNING"
    status = 503
    retryable = True

    def __init__(self, message: str, *, command: str) -> None:
        suggestion = f"On the server's machine run: {command} (or serve with --with-clock)"
        super().__init__(message, suggestion=suggestion, command=command)

    @property
    def retry_after_s(self) -> int:
        return 5  # someone has to start it


class ConfigurationError(Exception):
    """The server cannot start with this configuration. The message says what to change."""


class CopyError(Exception):
    """Data cannot be copied from one store to another. The message says why and what to do."""
