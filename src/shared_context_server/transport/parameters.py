"""Adds the name of the wrong parameter to the SDK's errors about invalid params."""

from __future__ import annotations

from typing import Any

from fastmcp import FastMCP
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from mcp_types.methods import validate_client_request
from pydantic import ValidationError

from shared_context_server.errors import InvalidArgument

MAX_FIELD_CHARS = 100


def name_wrong_parameters(mcp: FastMCP[Any]) -> None:
    """Make errors about invalid params name the first wrong parameter."""
    mcp._mcp_server.middleware.insert(0, _name_wrong_parameter)


async def _name_wrong_parameter(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    try:
        return await call_next(ctx)
    except ValidationError:
        error = _find_wrong_parameter(ctx)
        if error is None:  # the request is valid, so the error is elsewhere
            raise
    raise MCPError(INVALID_PARAMS, error.message, error.body())


def _find_wrong_parameter(context: ServerRequestContext[Any, Any]) -> InvalidArgument | None:
    try:
        validate_client_request(context.method, context.protocol_version, context.params)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    except (KeyError, ValueError):
        return None
    else:
        return None
    field = ".".join(str(part) for part in first["loc"])[:MAX_FIELD_CHARS] or "params"
    return InvalidArgument(
        f"{field}: {first['msg']}.",
        field=field,
        suggestion=f"Correct the params of {context.method}.",
    )
