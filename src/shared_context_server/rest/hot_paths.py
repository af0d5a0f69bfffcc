"""Route the busiest paths directly, without a search through the table of routes."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server.auth.middleware.answers import send_error
from shared_context_server.auth.middleware.head import head_of
from shared_context_server.auth.middleware.paths import MCP_PATH
from shared_context_server.errors import InternalError, SharedContextError
from shared_context_server.observability.request_ids import name_request
from shared_context_server.rest.calls import ToolEndpoint
from shared_context_server.rest.openapi import TOOL_PATH

_TOOL_PREFIX = TOOL_PATH.partition("{")[0]


class HotPaths:
    """Sends POST on /mcp to `mcp`, POST on a tool's path to `tools`, and the rest to `app`. `app`
    has routes for these paths too and answers other methods on them."""

    def __init__(self, app: ASGIApp, *, mcp: ASGIApp, tools: ToolEndpoint) -> None:
        self._app = app
        self._mcp = mcp
        self._tools = tools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"][-1:] != "/":
            path = head_of(scope).path
            try:
                if path == MCP_PATH:
                    await self._mcp(scope, receive, send)
                    return
                name = path.removeprefix(_TOOL_PREFIX)
                if name != path and name and "/" not in name:
                    await self._tools.call(name, receive, send)
                    return
            except SharedContextError as exc:
                await send_error(send, exc)
                return
            except Exception:
                with suppress(RuntimeError):  # the response has started
                    await send_error(
                        send, name_request(InternalError("The server failed at this request."))
                    )
                raise  # so that the server's log has the traceback
        await self._app(scope, receive, send)
