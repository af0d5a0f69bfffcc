# Written by `make docs` from the server's registry of tools. Do not edit.
"""The failures that the server names."""

from __future__ import annotations

from typing import ClassVar

from shared_context_client.errors import ServerUnavailable, SharedContextError


class InvalidArgument(SharedContextError):
    """An argument is missing, unknown, of a wrong type or out of range."""

    code = "INVALID_ARGUMENT"
    default_status: ClassVar[int | None] = 400
    default_retryable: ClassVar[bool] = False


class ContentTooLarge(SharedContextError):
    """A text, a value or a whole request body is over its limit."""

    code = "CONTENT_TOO_LARGE"
    default_status: ClassVar[int | None] = 413
    default_retryable: ClassVar[bool] = False


class Unauthenticated(SharedContextError):
    """Nobody is calling, or the credential is not valid (any more)."""

    code = "UNAUTHENTICATED"
    default_status: ClassVar[int | None] = 401
    default_retryable: ClassVar[bool] = False


class PermissionDenied(SharedContextError):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"
    default_status: ClassVar[int | None] = 403
    default_retryable: ClassVar[bool] = False


class OriginNotAllowed(PermissionDenied):
    """A page of another site is calling."""

    code = "ORIGIN_NOT_ALLOWED"
    default_status: ClassVar[int | None] = 403
    default_retryable: ClassVar[bool] = False


class NotFound(SharedContextError):
    """Base of the not-found errors; what a caller may not see is not found either."""

    code = "NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class SessionNotFound(NotFound):
    """There is no such session, or the caller may not know of it."""

    code = "SESSION_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class MessageNotFound(NotFound):
    """There is no such message in this session, or the caller may not see it."""

    code = "MESSAGE_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class MemoryNotFound(NotFound):
    """There is no entry of this key in this place, or it has expired."""

    code = "MEMORY_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class ToolNotFound(NotFound):
    """No tool of this name is served."""

    code = "TOOL_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class McpSessionNotFound(NotFound):
    """The Mcp-Session-Id that would name the caller is none that this server has given."""

    code = "MCP_SESSION_NOT_FOUND"
    default_status: ClassVar[int | None] = 404
    default_retryable: ClassVar[bool] = False


class MethodNotAllowed(SharedContextError):
    """The path is served, with other methods; `allowed` are those."""

    code = "METHOD_NOT_ALLOWED"
    default_status: ClassVar[int | None] = 405
    default_retryable: ClassVar[bool] = False


class NotAcceptable(SharedContextError):
    """The Accept header allows none of the forms in which this can be answered."""

    code = "NOT_ACCEPTABLE"
    default_status: ClassVar[int | None] = 406
    default_retryable: ClassVar[bool] = False


class UnsupportedMediaType(SharedContextError):
    """The body is declared to be something else than JSON."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    default_status: ClassVar[int | None] = 415
    default_retryable: ClassVar[bool] = False


class MalformedRequest(SharedContextError):
    """The request is not HTTP as this server speaks it, or can be read in two ways."""

    code = "MALFORMED_REQUEST"
    default_status: ClassVar[int | None] = 400
    default_retryable: ClassVar[bool] = False


class RequestTimeout(SharedContextError):
    """The client began a request and did not send the rest of it in time."""

    code = "REQUEST_TIMEOUT"
    default_status: ClassVar[int | None] = 408
    default_retryable: ClassVar[bool] = True


class TargetTooLong(SharedContextError):
    """The request's target, which is its path and query, is over its limit."""

    code = "TARGET_TOO_LONG"
    default_status: ClassVar[int | None] = 414
    default_retryable: ClassVar[bool] = False


class HeadersTooLarge(SharedContextError):
    """The request has too many header lines, or too many bytes of them."""

    code = "HEADERS_TOO_LARGE"
    default_status: ClassVar[int | None] = 431
    default_retryable: ClassVar[bool] = False


class InvalidMessage(SharedContextError):
    """The body is not one JSON-RPC 2.0 message."""

    code = "INVALID_MESSAGE"
    default_status: ClassVar[int | None] = 400
    default_retryable: ClassVar[bool] = False


class Conflict(SharedContextError):
    """The thing is in another state than the call expects; details tell which."""

    code = "CONFLICT"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class CursorLost(SharedContextError):
    """What the reader's cursor points behind is not in the log (any more)."""

    code = "CURSOR_LOST"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class SessionClosed(SharedContextError):
    """The session is closed: it can be read and not written."""

    code = "SESSION_CLOSED"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class LeaseLost(SharedContextError):
    """The lease that a write requires is not held by the caller with this token (any more)."""

    code = "LEASE_LOST"
    default_status: ClassVar[int | None] = 409
    default_retryable: ClassVar[bool] = False


class RateLimited(SharedContextError):
    """The caller has sent more calls, or holds more streams or connections, than a limit allows."""

    code = "RATE_LIMITED"
    default_status: ClassVar[int | None] = 429
    default_retryable: ClassVar[bool] = True


class Unavailable(ServerUnavailable):
    """The storage does not answer just now; a write was made wholly or not at all."""

    code = "UNAVAILABLE"
    default_status: ClassVar[int | None] = 503
    default_retryable: ClassVar[bool] = True


class StorageDamaged(SharedContextError):
    """What is stored cannot be read: the database file is damaged. Nothing was written."""

    code = "STORAGE_DAMAGED"
    default_status: ClassVar[int | None] = 500
    default_retryable: ClassVar[bool] = False


class ClockNotRunning(SharedContextError):
    """No clock daemon has written what was asked for; `details.command` starts one."""

    code = "CLOCK_NOT_RUNNING"
    default_status: ClassVar[int | None] = 503
    default_retryable: ClassVar[bool] = True


class HostNotAllowed(SharedContextError):
    """The Host header names none of the names of this server."""

    code = "HOST_NOT_ALLOWED"
    default_status: ClassVar[int | None] = 421
    default_retryable: ClassVar[bool] = False


BY_CODE: dict[str, type[SharedContextError]] = {
    InvalidArgument.code: InvalidArgument,
    ContentTooLarge.code: ContentTooLarge,
    Unauthenticated.code: Unauthenticated,
    PermissionDenied.code: PermissionDenied,
    OriginNotAllowed.code: OriginNotAllowed,
    NotFound.code: NotFound,
    SessionNotFound.code: SessionNotFound,
    MessageNotFound.code: MessageNotFound,
    MemoryNotFound.code: MemoryNotFound,
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
    Unavailable.code: Unavailable,
    StorageDamaged.code: StorageDamaged,
    ClockNotRunning.code: ClockNotRunning,
    HostNotAllowed.code: HostNotAllowed,
}
