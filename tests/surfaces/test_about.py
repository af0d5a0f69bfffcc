"""What clients and directories are told about the server, and for how long they may keep it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

from shared_context_server.about import DESCRIPTION, LISTS_TTL_MS, TITLE
from tests.settings import make_settings
from tests.surfaces.conftest import headers_of, serve
from tests.surfaces.test_mcp import (
    INITIALIZE,
    MODERN,
    client_of,
    legacy_message,
    modern_call,
    modern_headers,
)

WEBSITE = "https://agents.example/shared-context"
STAMP = "io.modelcontextprotocol/serverInfo"
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")


async def ask_modern(http: httpx.AsyncClient, method: str) -> dict[str, Any]:
    params = {"_meta": modern_call("", {})["params"]["_meta"]}
    headers = modern_headers("") | {"Mcp-Method": method}
    del headers["Mcp-Name"]
    answer = await http.post("/mcp", json=legacy_message(method, params), headers=headers)
    result: dict[str, Any] = answer.json()["result"]
    return result


def check_icons(info: dict[str, Any]) -> None:
    png, svg = info["icons"]
    for icon, kind in ((png, "image/png"), (svg, "image/svg+xml")):
        assert icon["mimeType"] == kind
        head, _, content = icon["src"].partition(",")
        assert head == f"data:{kind};base64"
        data = base64.b64decode(content)
        if icon is png:
            assert data.startswith(b"\x89PNG\r\n")
        else:
            assert ET.fromstring(data).tag.endswith("svg")
    assert len(png["src"]) + len(svg["src"]) < 2_000


async def test_the_server_describes_itself_in_both_eras(tmp_path: Path) -> None:
    async with (
        serve(make_settings(tmp_path, website_url=WEBSITE)) as (_, url),
        httpx.AsyncClient(base_url=url, headers={"Accept": "application/json"}) as http,
    ):
        for _ in range(2):  # the second answer is the one that the direct lane has kept
            hello = dict(INITIALIZE["params"], protocolVersion="2025-11-25")
            started = (await http.post("/mcp", json={**INITIALIZE, "params": hello})).json()
            discovered = await ask_modern(http, "server/discover")
            for info in (started["result"]["serverInfo"], discovered["_meta"][STAMP]):
                assert info["name"] == "shared-context-server"
                assert (info["title"], info["description"]) == (TITLE, DESCRIPTION)
                assert info["websiteUrl"] == WEBSITE
                check_icons(info)
            assert discovered["ttlMs"] == LISTS_TTL_MS


async def test_other_answers_contain_the_name_and_the_version_only(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        called = await http.post(
            "/mcp",
            json=modern_call("list_sessions", {}),
            headers=modern_headers("list_sessions", **headers_of("alice")),
        )
        listed = [await ask_modern(http, method) for method in LISTS]
        discovered = await ask_modern(http, "server/discover")
    for result in (called.json()["result"], *listed):
        assert result["_meta"][STAMP].keys() == {"name", "version"}
    for result in (*listed, discovered):
        assert (result["ttlMs"], result["cacheScope"]) == (LISTS_TTL_MS, "public")
    assert "websiteUrl" not in discovered["_meta"][STAMP]  # without the setting


async def test_what_changes_may_not_be_kept(url: str) -> None:
    async with client_of(url, headers_of("alice")) as client:
        read = await client.read_resource_mcp("clock://now")
    assert read.ttl_ms == 0


@pytest.mark.parametrize("mode", [MODERN, "legacy"])
async def test_resources_and_prompts_have_titles(url: str, mode: str) -> None:
    async with client_of(url, mode=mode) as client:
        prompts = await client.list_prompts()
        resources = await client.list_resources()
        templates = await client.list_resource_templates()
    assert {prompt.title for prompt in prompts} == {"Set up collaboration", "Catch up", "Hand over"}
    # A file of a skill has its name only.
    ours = [each for each in resources if not each.uri.startswith("skill:")]
    for listed in (*prompts, *ours, *templates):
        assert listed.title, listed.name
        assert listed.description, listed.name
