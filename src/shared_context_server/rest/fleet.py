"""GET /fleet: what every agent does, as the first page of the dashboard shows it."""

from __future__ import annotations

from pydantic_core import to_json
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from shared_context_server.auth.middleware import current_connection
from shared_context_server.errors import InvalidArgument
from shared_context_server.rest.wire import send_body
from shared_context_server.services.context import Services
from shared_context_server.services.fleet import DEFAULT_LISTED, get_fleet
from shared_context_server.tools.fleet import describe_fleet

FLEET_PATH = "/fleet"
MAX_LISTED = 1000
_PARAMETERS = ("limit", "cursor")


class FleetEndpoint:
    """Answers one page of the agents that were seen within the last day."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        caller = current_connection.get().caller
        for name in request.query_params:
            if name not in _PARAMETERS:
                raise InvalidArgument(
                    f"Unknown argument {name[:100]!r}.",
                    field=name[:100],
                    suggestion="The arguments are limit and cursor.",
                )
        limit = _read_limit(request.query_params.get("limit"))
        cursor = request.query_params.get("cursor") or None
        fleet = await get_fleet(self._services, caller, limit=limit, cursor=cursor)
        await send_body(send, to_json(describe_fleet(fleet)))


def _read_limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LISTED
    if text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MAX_LISTED:
        return int(text)
    raise InvalidArgument(f"limit must be 1 to {MAX_LISTED}.", field="limit")
