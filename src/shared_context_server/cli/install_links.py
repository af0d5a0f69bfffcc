"""Makes the links that add this server to an editor with one click.

Formats: https://cursor.com/docs/mcp/install-links, and `vscode:mcp/install?` as
https://code.visualstudio.com/api/extension-guides/ai/mcp describes it. Sites that remove links with
other schemes than https, such as GitHub, need `web_link`, which leads to the same through the
editor's own site.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from shared_context_server.cli.clients import SERVER_NAME, Access, Client, Document
from shared_context_server.errors import ConfigurationError

KEY_VARIABLE: Final = "SCS_API_KEY"
_INPUT: Final = "shared-context-api-key"
_INPUTS: Final = [
    {
        "type": "promptString",
        "id": _INPUT,
        "description": "API key of the Shared Context Server",
        "password": True,
    }
]
_PLACEHOLDERS: Final = {
    Client.CURSOR: f"${{env:{KEY_VARIABLE}}}",  # a variable of the editor's environment
    Client.VSCODE: f"${{input:{_INPUT}}}",  # asked once, and kept encrypted
}
"""What stands for the key in a link without it."""


def install_link(client: Client, access: Access, *, with_key: bool = False) -> str:
    """The link. Without the key the editor finds it by itself, or asks for it.

    Raises ConfigurationError if the client has no such links.
    """
    if client not in _PLACEHOLDERS:
        offered = " and ".join(_PLACEHOLDERS)
        raise ConfigurationError(f"There are links for {offered} only, not for {client}.")
    entry, inputs = _entry(client, access, with_key=with_key)
    if client is Client.CURSOR:
        return f"cursor://anysphere.cursor-deeplink/mcp/install?{_cursor_query(entry)}"
    # VS Code decodes the text twice, so it may contain no percent sign of its own.
    text = _compact({"name": SERVER_NAME, **entry, **inputs}).replace("%", "\\u0025")
    return f"vscode:mcp/install?{quote(text, safe='')}"


def web_link(client: Client, access: Access) -> str:
    """The link without the key, as an https address that opens the editor."""
    entry, inputs = _entry(client, access, with_key=False)
    if client is Client.CURSOR:
        return f"https://cursor.com/install-mcp?{_cursor_query(entry)}"
    parts = {"config": entry, **inputs}
    texts = {name: _compact(part) for name, part in parts.items()}
    query = urlencode({"name": SERVER_NAME, **texts}, quote_via=quote)
    return f"https://vscode.dev/redirect/mcp/install?{query}"


def describe_key(client: Client) -> str:
    """How the editor comes by the key that the link leaves out."""
    if client is Client.CURSOR:
        return (
            f"The link contains no key: Cursor reads it from its variable {KEY_VARIABLE}. Set it "
            "before you start Cursor, for example with `scs client-config env`, or use --with-key."
        )
    return (
        "The link contains no key: VS Code asks for it. `scs client-config env` prints it, or use "
        "--with-key."
    )


def _entry(client: Client, access: Access, *, with_key: bool) -> tuple[Document, Document]:
    """The entry of the server, and the inputs that its headers refer to."""
    if access.key is None or with_key:
        shown, inputs = access, {}
    else:
        shown = replace(access, key=_PLACEHOLDERS[client])
        inputs = {"inputs": _INPUTS} if client is Client.VSCODE else {}
    kind = {"type": "http"} if client is Client.VSCODE else {}
    return {**kind, "url": shown.mcp_url, "headers": shown.headers}, inputs


def _cursor_query(entry: Document) -> str:
    config = b64encode(_compact(entry).encode()).decode()
    return urlencode({"name": SERVER_NAME, "config": config}, quote_via=quote, safe="")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
