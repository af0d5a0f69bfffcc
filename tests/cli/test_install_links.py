"""Links that add the server to an editor: the formats that Cursor and VS Code read, with and without the key."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared_context_server.cli.clients import Access, Client
from shared_context_server.cli.install_links import install_link, web_link
from shared_context_server.errors import ConfigurationError
from shared_context_server.remote.access import DEFAULT_URL
from shared_context_server.settings import read_secrets
from tests.cli.conftest import Run

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def read_vscode(link: str) -> dict[str, Any]:
    """As VS Code reads it: its URI class decodes the query, and the handler decodes it again."""
    start, _, query = link.partition("?")
    assert start == "vscode:mcp/install"
    document: dict[str, Any] = json.loads(unquote(unquote(query, errors="strict"), errors="strict"))
    return document


def read_cursor(link: str) -> tuple[str, dict[str, Any]]:
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc) == ("cursor", "anysphere.cursor-deeplink")
    assert parts.path == "/mcp/install"
    query = parse_qs(parts.query, strict_parsing=True)
    return query["name"][0], json.loads(b64decode(query["config"][0], validate=True))


@example(key="100%41", agent_id="a&b=c#é")
@given(key=st.text(min_size=1, max_size=20), agent_id=st.text(min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_text_survives_the_link(key: str, agent_id: str) -> None:
    access = Access("http://127.0.0.1:8000", key, agent_id)
    headers = {"X-API-Key": key, "X-Agent-ID": agent_id}
    entry = {"url": "http://127.0.0.1:8000/mcp", "headers": headers}
    found = read_vscode(install_link(Client.VSCODE, access, with_key=True))
    assert found == {"name": "shared-context", "type": "http", **entry}
    assert read_cursor(install_link(Client.CURSOR, access, with_key=True)) == (
        "shared-context",
        entry,
    )


def test_without_the_key_vs_code_asks_and_cursor_reads_its_environment() -> None:
    access = Access(DEFAULT_URL, "the-key", "me")
    asking = read_vscode(install_link(Client.VSCODE, access))
    [asked] = asking["inputs"]
    assert (asked["type"], asked["password"]) == ("promptString", True)
    assert asking["headers"]["X-API-Key"] == f"${{input:{asked['id']}}}"
    _, reading = read_cursor(install_link(Client.CURSOR, access))
    assert reading["headers"]["X-API-Key"] == "${env:SCS_API_KEY}"


@pytest.mark.parametrize("client", [Client.CURSOR, Client.VSCODE])
def test_the_readme_links_to_a_server_with_the_defaults_and_without_a_key(client: Client) -> None:
    link = web_link(client, Access(DEFAULT_URL, "the-key", client.value))
    assert f"({link})" in README
    assert "the-key" not in unquote(link)


def test_only_editors_with_such_links_have_one() -> None:
    with pytest.raises(ConfigurationError, match="cursor and vscode only, not for zed"):
        install_link(Client.ZED, Access(DEFAULT_URL, None, "zed"))


def test_the_command_puts_the_key_into_a_link_only_if_it_is_asked_to(
    scs: Run, tmp_path: Path
) -> None:
    at = {"SCS_DATA_DIR": str(tmp_path / "data")}
    without = scs("client-config", "vscode", "--link", **at)
    key = read_secrets(tmp_path / "data" / "secrets.env")["API_KEY"]
    assert key not in without.stdout
    assert "VS Code asks for it" in without.stderr
    with_key = scs("client-config", "vscode", "--link", "--with-key", **at)
    assert read_vscode(with_key.stdout.strip())["headers"]["X-API-Key"] == key
    assert "contains your API key" in with_key.stderr
    refused = scs("client-config", "vscode", "--with-key", **at)
    assert refused.returncode == 2
    assert "--link" in refused.stderr
