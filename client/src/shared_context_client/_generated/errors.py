# Written by `make docs` from the server's registry of tools. Do not edit.
"""The failures that the server names."""

from __future__ import annotations

from typing import ClassVar

from shared_context_client.errors import ServerUnavailable, SharedContextError


class InvalidArgument(SharedContextError):
    """An argument is missing, unknown, of the wrong type or out of range."""

    code = "INVALID_ARGUMENT"
    default_status: ClassVar[int | None] = 400
    default_retryable: ClassVar[bool] = False


class ContentTooLarge(SharedContextError):
    """A text, a value or a request body is larger than its limit."""

    code = "CONTENT_TOO_LARGE"
    default_status: ClassVar[int | None] = 413
    default_retryable: ClassVar[bool] = False


class Unauthenticated(SharedContextError):
    """The request has no credential, or one that is not valid (any more)."""

    code = "UNAUTHENTICATED"
    default_status: ClassVar[int | None] = 401
    default_retryable: ClassVar[bool] = False


class PermissionDenied(SharedContextError):
    """The caller is authenticated but may not do this."""

    code = "PERMISSION_DENIED"
    default_status: ClassVar[int | None] = 403
    default_retryable: ClassVar[bool] = False


class CrossSiteRequest(PermissionDenied):
    """On the dashboard: a form or script of another site has sent the request, or the page is older than the sign-in."""

    code = "CROSS_SITE_REQUEST"
    default_status: ClassVar[int | None] = 403
    default_retryable: ClassVar[bool] = False


class OriginNotAllowed(PermissionDenied):
    """The request comes from a page of another site."""

    code = "ORIGIN_NOT_ALLOWED"
    default_status: ClassVar[int | None] = 403
    default_retryable: ClassVar[bool] = False


class NotFound(SharedContextError):
    """There is no such thing, or the caller may not see it."""

    code = "NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class SessionNotFound(NotFound):
    """The session does not exist, or the caller may not see it."""

    code = "SESSION_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class MessageNotFound(NotFound):
    """The message does not exist in this session, or the caller may not see it."""

    code = "MESSAGE_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class MemoryNotFound(NotFound):
    """There is no memory entry with this key, session and scope, or it has expired."""

    code = "MEMORY_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class TaskNotFound(NotFound):
    """The session has no task with this id."""

    code = "TASK_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class ToolNotFound(NotFound):
    """There is no tool with this name."""

    code = "TOOL_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class McpSessionNotFound(NotFound):
    """This server did not issue the Mcp-Session-Id that should name the caller."""

    code = "MCP_SESSION_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class MethodNotAllowed(SharedContextError):
    """The route has other methods, which are in `allowed`."""

    code = "METHOD_NOT_ALLOWED"
    default_status: ClassVar[int | None] = 405
    default_retryable: ClassVar[bool] = False


class NotAcceptable(SharedContextError):
    """The Accept header allows none of the available media types."""

    code = "NOT_ACCEPTABLE"
    default_status: ClassVar[int | None] = 406
    default_retryable: ClassVar[bool] = False


class UnsupportedMediaType(SharedContextError):
    """The content type of the body is not JSON."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    default_status: ClassVar[int | None] = 415
    default_retryable: ClassVar[bool] = False


class MalformedRequest(SharedContextError):
    """The request is not valid HTTP/1.1, or it is ambiguous."""

    code = "MALFORMED_REQUEST"
    default_status: ClassVar[int | None] = 400
    default_retryable: ClassVar[bool] = False


class RequestTimeout(SharedContextError):
    """The client did not send the whole request in time."""

    code = "REQUEST_TIMEOUT"
    default_status: ClassVar[int | None] = 408
    default_retryable: ClassVar[bool] = True


class TargetTooLong(SharedContextError):
    """The request target, which is its path and query, is longer than its limit."""

    code = "TARGET_TOO_LONG"
    default_status: ClassVar[int | None] = 414
    default_retryable: ClassVar[bool] = False


class HeadersTooLarge(SharedContextError):
    """The request has too many header lines, or they are too long."""

    code = "HEADERS_TOO_LARGE"
    default_status: ClassVar[int | None] = 431
    default_retryable: ClassVar[bool] = False


class InvalidMessage(SharedContextError):
    """The body is not one JSON-RPC 2.0 message."""

    code = "INVALID_MESSAGE"
    default_status: ClassVar[int | None] = 400
    default_retryable: ClassVar[bool] = False


class Conflict(SharedContextError):
    """The current state differs from what the call expects. It is in the details."""

    code = "CONFLICT"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class CursorLost(SharedContextError):
    """The reader's cursor does not belong to the current log."""

    code = "CURSOR_LOST"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class SessionClosed(SharedContextError):
    """The session is closed, so it is read-only."""

    code = "SESSION_CLOSED"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class LeaseLost(SharedContextError):
    """The caller does not hold the lease of a write with this token (any more)."""

    code = "LEASE_LOST"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class RateLimited(SharedContextError):
    """The caller has reached a limit of calls, streams or connections."""

    code = "RATE_LIMITED"
    default_status: ClassVar[int | None] = 429
    default_retryable: ClassVar[bool] = True


class QuotaExceeded(SharedContextError):
    """A session or an agent has as much stored as it may. `details` names the limit and its maximum, and `used`, how much the agent has stored, if the limit is the agent's."""

    code = "QUOTA_EXCEEDED"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class Unavailable(ServerUnavailable):
    """The storage does not answer at the moment. A write was made completely or not at all."""

    code = "UNAVAILABLE"
    default_status: ClassVar[int | None] = 503
    default_retryable: ClassVar[bool] = True


class StorageFull(Unavailable):
    """Only its reserve is left on the disk of the storage. Nothing was written. Reading and deleting still work. A disk that is full is UNAVAILABLE."""

    code = "STORAGE_FULL"
    default_status: ClassVar[int | None] = 503
    default_retryable: ClassVar[bool] = True


class StorageDamaged(SharedContextError):
    """The database file is damaged and cannot be read. Nothing was written."""

    code = "STORAGE_DAMAGED"
    default_status: ClassVar[int | None] = 500
    default_retryable: ClassVar[bool] = False


class ClockNotRunning(SharedContextError):
    """There is no data from a clock daemon. `details.command` starts one."""

    code = "CLOCK_NOT_RUNNING"
    default_status: ClassVar[int | None] = 503
    default_retryable: ClassVar[bool] = True


class HostNotAllowed(SharedContextError):
    """The Host header is not one of this server's names."""

    code = "HOST_NOT_ALLOWED"
    default_status: ClassVar[int | None] = 421
    default_retryable: ClassVar[bool] = False


BY_CODE: dict[str, type[SharedContextError]] = {
    InvalidArgument.code: InvalidArgument,
    ContentTooLarge.code: ContentTooLarge,
    Unauthenticated.code: Unauthenticated,
    PermissionDenied.code: PermissionDenied,
    CrossSiteRequest.code: CrossSiteRequest,
    OriginNotAllowed.code: OriginNotAllowed,
    NotFound.code: NotFound,
    SessionNotFound.code: SessionNotFound,
    MessageNotFound.code: MessageNotFound,
    MemoryNotFound.code: MemoryNotFound,
    TaskNotFound.code: TaskNotFound,
    ToolNotFound.code: ToolNotFound,
    McpSessionNotFound.code: McpSessionNotFound,
    MethodNotAllowed.code: MethodNotAllowed,
    NotAcceptable.code: NotAcceptable,
    UnsupportedMediaType.code: UnsupportedMediaType,
    MalformedRequest.code: MalformedRequest,
    RequestTimeout.code: RequestTimeout,
    TargetTooLong.code: TargetTooLong,
    HeadersTooLarge.code: HeadersTooLarge,
    InvalidMessage.code: InvalidMessage,
    Conflict.code: Conflict,
    CursorLost.code: CursorLost,
    SessionClosed.code: SessionClosed,
    LeaseLost.code: LeaseLost,
    RateLimited.code: RateLimited,
    QuotaExceeded.code: QuotaExceeded,
    Unavailable.code: Unavailable,
    StorageFull.code: StorageFull,
    StorageDamaged.code: StorageDamaged,
    ClockNotRunning.code: ClockNotRunning,
    HostNotAllowed.code: HostNotAllowed,
}
