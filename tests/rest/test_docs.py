"""The page at /docs."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from shared_context_server.rest.docs import docs_endpoint
from shared_context_server.tools.catalog import TOOLS
from tests.rest.conftest import BASE_URL


class Outline(HTMLParser):
    """What a page consists of: its tags, ids, links and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src") and value:
                self.links.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
async def response(stranger: httpx.AsyncClient) -> httpx.Response:
    return await stranger.get("/docs")


async def test_it_lists_each_tool_with_its_arguments(response: httpx.Response) -> None:
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    outline = Outline(response.text)
    for tool in TOOLS:
        assert tool.name in outline.ids
        assert f"/mcp/tool/{tool.name}" in outline.text
        assert " ".join(tool.description.replace("`", "").split()) in " ".join(outline.text.split())
        for argument in tool.input_schema["properties"]:
            assert argument in outline.text
    for path in ("/mcp/batch", "/health", "/ready", "/metrics"):
        assert path in outline.text


async def test_its_links_lead_somewhere(
    response: httpx.Response, stranger: httpx.AsyncClient
) -> None:
    outline = Outline(response.text)
    assert len(outline.ids) == len(set(outline.ids))
    for link in outline.links:
        if link.startswith("#"):
            assert link[1:] in outline.ids
        else:
            assert (await stranger.get(f"/{link}")).status_code == 200


async def test_it_loads_nothing_and_runs_nothing(response: httpx.Response) -> None:
    outline = Outline(response.text)
    assert not outline.tags & {"script", "link", "img", "iframe", "form", "object"}
    assert "style" not in outline.attributes
    assert not [name for name in outline.attributes if name.startswith("on")]
    assert "http-equiv" not in outline.attributes


async def test_its_policy_allows_this_stylesheet_only(response: httpx.Response) -> None:
    policy = response.headers["content-security-policy"]
    found = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_it_is_made_for_phones_and_for_dark_rooms(response: httpx.Response) -> None:
    assert 'name="viewport"' in response.text
    assert "prefers-color-scheme: dark" in response.text


async def test_what_a_document_says_is_escaped(stranger: httpx.AsyncClient) -> None:
    document = (await stranger.get("/openapi.json")).json()
    evil = "<script>alert(1)</script>"
    document["paths"]["/mcp/tool/add_message"]["post"]["description"] = evil
    document["info"]["title"] = evil
    app = Starlette(routes=[Route("/docs", docs_endpoint(document))])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        page = (await client.get("/docs")).text
    assert evil not in page
    assert "&lt;script&gt;" in page
