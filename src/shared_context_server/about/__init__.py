"""What the server says about itself to MCP clients: title, description, icon, website, and how long
its lists stay the same."""

from __future__ import annotations

from base64 import b64encode
from importlib.resources import files
from typing import Any, Final

from fastmcp import FastMCP
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp_types import SERVER_INFO_META_KEY, DiscoverResult, Icon, RequestParams
from mcp_types.methods import CacheableMethod

TITLE: Final = "Shared Context Server"
DESCRIPTION: Final = (
    "Sessions, messages, search, memory and leases that several AI agents share, and a clock."
)
LISTS_TTL_MS: Final = 600_000
"""How long a client may keep a list. A list changes only when the server is updated or started with
other settings, and clients connect again then; but a stateless one does not notice."""

_SAME_FOR_ALL: Final[tuple[CacheableMethod, ...]] = (
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
)
_STAMPED: Final = frozenset({"name", "version"})


def describe_server(mcp: FastMCP[Any], website_url: str | None) -> None:
    """Make the server describe itself in its answers to initialize and server/discover.

    Since 2026-07-28 each result contains the server's name and version. The icon and the texts are
    left out there, because they would make each answer longer than many a result.
    """
    low = mcp._mcp_server
    low.title, low.description, low.website_url = TITLE, DESCRIPTION, website_url
    low.icons = [_icon("icon.png", "image/png", "48x48"), _icon("icon.svg", "image/svg+xml", "any")]
    low.cache_hints |= {
        method: CacheHint(ttl_ms=LISTS_TTL_MS, scope="public") for method in _SAME_FOR_ALL
    }
    whole = low.server_info.model_dump(by_alias=True, mode="json", exclude_none=True)
    low._server_info_stamp_source = {name: whole[name] for name in sorted(_STAMPED)}

    async def discover(
        context: ServerRequestContext[Any, Any], params: RequestParams | None
    ) -> DiscoverResult:
        result = await low._handle_discover(context, params)
        return result.model_copy(update={"meta": {SERVER_INFO_META_KEY: whole}})

    low.add_request_handler("server/discover", RequestParams, discover)


def _icon(name: str, mime_type: str, size: str) -> Icon:
    """An icon inside the answer itself, so that clients need no other address to show it."""
    content = b64encode(files(__name__).joinpath(name).read_bytes()).decode()
    return Icon(src=f"data:{mime_type};base64,{content}", mime_type=mime_type, sizes=[size])
