"""A real server process, and Chromium in which people look at its dashboard.

Playwright is in an environment of its own (`make test-browser`), so it is imported where it is used. It
drives the Chromium of the machine, and downloads none.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.cli.conftest import ServerProcess, make_env, make_serve
from tests.settings import ADMIN_API_KEY, API_KEY, JWT_SECRET_KEY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

PATIENCE_MS = 20_000
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
KEYS = {"API_KEY": API_KEY, "ADMIN_API_KEY": ADMIN_API_KEY, "JWT_SECRET_KEY": JWT_SECRET_KEY}
# Told to a binding, since what happens while a page is left would be lost in the page itself.
_TELL_VIOLATIONS = """
    document.addEventListener("securitypolicyviolation", (event) =>
        window.tellViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


def find_chromium() -> str:
    """The path of Chromium. Without one the test is skipped, or fails where CI=true."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        reason = "Chromium is missing: install it (Debian: apt-get install chromium)."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - see above

    path = find_chromium()
    is_root = os.geteuid() == 0  # Chromium's sandbox does not run as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"] if is_root else []
        )
        yield browser
        browser.close()


@contextmanager
def open_server(directory: Path, *arguments: str, **variables: str) -> Iterator[ServerProcess]:
    """A server process on a data dir in this directory, with the keys of all tests."""
    serve = make_serve(make_env(directory), directory)
    with serve(*arguments, is_executed=True, **(KEYS | variables)) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with open_server(tmp_path_factory.mktemp("server")) as server:
        yield server


class Window:
    """A person's browser: its page, and what went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.violations: list[str] = []
        self.errors: list[str] = []
        context.set_default_timeout(PATIENCE_MS)
        context.expose_binding("tellViolation", lambda _, text: self.violations.append(text))
        context.add_init_script(_TELL_VIOLATIONS)
        self.page = self.open_page()

    def open_page(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self._note(line.type, line.text))
        return page

    def _note(self, kind: str, text: str) -> None:
        if "Content Security Policy" in text or "Content-Security-Policy" in text:
            self.violations.append(text)
        elif kind == "error" and "Failed to load resource" not in text:
            self.errors.append(text)

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sign_in(self, key: str = ADMIN_API_KEY, agent_id: str = "overseer") -> None:
        self.go("/ui/login")
        self.page.get_by_label("Key").fill(key)
        self.page.get_by_label("Agent id").fill(agent_id)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.locator("#navigation").wait_for(state="attached")  # hidden on phones

    def assert_clean(self) -> None:
        assert self.violations == []
        assert self.errors == []


@contextmanager
def open_window(chromium: Browser, url: str, **options: Any) -> Iterator[Window]:
    """A window of its own, without cookies. At its end nothing may have gone wrong in it."""
    context = chromium.new_context(timezone_id="Europe/Berlin", **options)
    window = Window(context, url)
    try:
        yield window
        window.assert_clean()
    finally:
        context.close()


@pytest.fixture
def window(chromium: Browser, server: ServerProcess) -> Iterator[Window]:
    """A window in which nobody is signed in."""
    with open_window(chromium, server.url) as window:
        yield window


@pytest.fixture
def overseer(window: Window) -> Window:
    """A window in which the overseer is signed in with the admin key."""
    window.sign_in()
    return window


class Agent:
    """An agent that calls tools over HTTP."""

    def __init__(self, url: str, agent_id: str) -> None:
        self._url = url
        self._headers = {
            "X-API-Key": API_KEY,
            "X-Agent-ID": agent_id,
            "Accept": "application/json",
            "MCP-Protocol-Version": "2025-06-18",
        }

    def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call over MCP, as agents do."""
        params = {"name": tool, "arguments": arguments}
        response = httpx.post(
            f"{self._url}/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
            headers=self._headers,
            timeout=30,
        )
        result = response.json()["result"]
        answer: dict[str, Any] = json.loads(result["content"][0]["text"])
        assert answer["success"], answer
        return answer

    def create_session(self, purpose: str = "Work of the tests") -> str:
        session_id: str = self.call("create_session", purpose=purpose)["session_id"]
        return session_id

    def say(self, session_id: str, content: str, **more: Any) -> int:
        seq: int = self.call("add_message", session_id=session_id, content=content, **more)["seq"]
        return seq


@pytest.fixture(scope="module")
def builder(server: ServerProcess) -> Agent:
    return Agent(server.url, "builder")
