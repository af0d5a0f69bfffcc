"""Errors of the HTTP routes, in the one error shape."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from shared_context_server.auth.middleware.answers import error_headers
from shared_context_server.errors import (
    InternalError,
    InvalidArgument,
    MethodNotAllowed,
    RouteNotFound,
    SharedContextError,
)
from shared_context_server.observability.request_ids import name_request
from shared_context_server.rest.wire import JSON

MAX_SHOWN_CHARS = 200


def exception_handlers() -> dict[Any, ExceptionHandler]:
    """Return Starlette's handlers for unknown paths, wrong methods, our errors and defects."""
    return {
        HTTPException: _answer_http_exception,
        SharedContextError: _answer_error,
        Exception: _answer_defect,
    }


async def _answer_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    path = request.scope["path"][:MAX_SHOWN_CHARS]
    if exc.status_code == RouteNotFound.status:
        return _answer(RouteNotFound(path))
    if exc.status_code == MethodNotAllowed.status:
        allowed = sorted((exc.headers or {}).get("Allow", "").split(", "))
        response = _answer(MethodNotAllowed(request.method, path, allowed))
        response.headers["allow"] = ", ".join(allowed)
        return response
    return _answer(InvalidArgument(exc.detail), exc.status_code)


async def _answer_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, SharedContextError)
    return _answer(name_request(exc) if isinstance(exc, InternalError) else exc)


async def _answer_defect(_request: Request, _exc: Exception) -> Response:
    # Starlette raises it again after this answer, so the server's log has the traceback.
    return _answer(name_request(InternalError("The server failed at this request.")))


def _answer(error: SharedContextError, status: int | None = None) -> Response:
    response = Response(to_json(error.body()), status or error.status, media_type=JSON.decode())
    response.raw_headers.extend(error_headers(error.status, error.retry_after_s))
    return response
