"""A whole server in this process, and people who look at its dashboard."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared_context_server.server import Server, open_server
from tests.rest.conftest import BASE_URL, client_of
from tests.settings import ADMIN_API_KEY, API_KEY, make_settings

_CSRF = re.compile(r'name="csrf" value="([0-9a-f]{64})"')


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(make_settings(tmp_path)) as server:
        yield server


@pytest.fixture
async def agent(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """worker-7, who may read and write, over the API."""
    async with client_of(server, X_API_Key=API_KEY, X_Agent_ID="worker-7") as client:
        yield client


def browser_of(server: Server) -> httpx.AsyncClient:
    """A browser without cookies yet, as far as HTTP goes."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(server.app, raise_app_exceptions=False), base_url=BASE_URL
    )


@pytest.fixture
async def visitor(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who is not signed in."""
    async with browser_of(server) as browser:
        yield browser


@pytest.fixture
async def overseer(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A person who is signed in with the admin key."""
    async with browser_of(server) as browser:
        await sign_in(browser, ADMIN_API_KEY, "overseer")
        yield browser


@pytest.fixture
async def person(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A person who is signed in with the ordinary key, as the agent `person`."""
    async with browser_of(server) as browser:
        await sign_in(browser, API_KEY, "person")
        yield browser


async def sign_in(browser: httpx.AsyncClient, key: str, agent_id: str = "") -> httpx.Response:
    """Fill in the form; the browser keeps the cookie."""
    response = await browser.post("/ui/login", data={"api_key": key, "agent_id": agent_id})
    assert response.status_code == 303, response.text
    return response


async def read_csrf(browser: httpx.AsyncClient, path: str = "/ui/sessions") -> str:
    """The token of the forms of a page."""
    found = _CSRF.search((await browser.get(path)).text)
    assert found is not None
    return found[1]


async def submit(
    browser: httpx.AsyncClient, path: str, /, *, page: str = "/ui/sessions", **fields: str
) -> httpx.Response:
    """Send a form of this page, with its token."""
    token = await read_csrf(browser, page)
    return await browser.post(path, data={"csrf": token, **fields})


def text_of(page: httpx.Response) -> str:
    """What a reader sees of the page, without tags and on one line."""
    without_tags = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page.text, flags=re.DOTALL)
    return " ".join(html.unescape(without_tags).split())


SignIn = Callable[..., Any]
