"""A whole server in this process, and people who look at its dashboard."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared_context_server.server import Server, open_server
from tests.rest.conftest import BASE_URL, client_of
from tests.settings import ADMIN_API_KEY, API_KEY, make_settings

PATIENCE_S = 30
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


@dataclass(frozen=True)
class Sent:
    """One event of a stream."""

    event: str
    data: str
    id: str


class Stream:
    """The events of a page's stream, as they come."""

    def __init__(self, messages: asyncio.Queue[Any]) -> None:
        self._messages = messages
        self._rest = ""
        self.status = 0

    async def begin(self) -> None:
        start = await asyncio.wait_for(self._messages.get(), PATIENCE_S)
        self.status = start["status"]

    async def next(self) -> Sent:
        while True:
            while "\n\n" not in self._rest:
                message = await asyncio.wait_for(self._messages.get(), PATIENCE_S)
                self._rest += message["body"].decode()
            block, _, self._rest = self._rest.partition("\n\n")
            fields: dict[str, list[str]] = {}
            for line in block.split("\n"):
                name, _, value = line.partition(": ")
                fields.setdefault(name, []).append(value)
            if "event" in fields:
                data = "\n".join(fields.get("data", []))
                return Sent(fields["event"][0], data, fields.get("id", [""])[0])


@asynccontextmanager
async def follow(server: Server, browser: httpx.AsyncClient, path: str) -> AsyncIterator[Stream]:
    """Open a stream as this browser; it hangs up at the end of the block."""
    request = browser.build_request("GET", path, headers={"Accept": "text/event-stream"})
    messages: asyncio.Queue[Any] = asyncio.Queue()
    requests = asyncio.Queue[dict[str, Any]]()
    requests.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": request.url.path,
        "raw_path": request.url.raw_path,
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 23456),
    }
    serving = asyncio.ensure_future(server.app(scope, requests.get, messages.put))
    try:
        stream = Stream(messages)
        await stream.begin()
        yield stream
    finally:
        requests.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(serving, PATIENCE_S)
