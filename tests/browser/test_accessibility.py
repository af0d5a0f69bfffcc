"""Each page on a desktop and on a phone, light and dark: no serious finding of axe-core, nothing wider
than the screen. Run by make test-browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="run by make test-browser")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from shared_context_server.ui.navigation import NAVIGATION
from tests.browser.conftest import Agent, open_window
from tests.cli.conftest import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZES = {"desktop": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def session_id(server: ServerProcess, builder: Agent) -> str:
    """A session with something of everything."""
    session_id = builder.create_session("Everything that a page can show " * 4)
    builder.say(session_id, "question", metadata={"question": True, "list": [1, 2, 3]})
    builder.say(session_id, "```\n" + "code " * 200 + "\n```\n" + "x" * 5000)
    reviewer = Agent(server.url, "reviewer")
    reviewer.say(session_id, "private", visibility="private", recipients=["builder"])
    reviewer.say(session_id, "for my type", visibility="agent_only")
    reviewer.say(session_id, "for admins", visibility="admin_only")
    first = builder.call("get_messages", session_id=session_id)["messages"][0]["id"]
    reviewer.say(session_id, "reply", parent_message_id=first, requires_ack=True)
    for kind in ("advice", "redirect", "stop"):
        builder.say(session_id, kind, metadata={"overseer": kind})
    builder.call("acquire_lease", session_id=session_id, name="src")
    builder.call("add_task", session_id=session_id, title="work")
    builder.call("claim_task", session_id=session_id)
    builder.call("set_memory", session_id=session_id, key="k", value={"a": 1}, scope="shared")
    return session_id


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_no_page_has_a_serious_finding(
    chromium: Browser, server: ServerProcess, session_id: str, size: str, scheme: str
) -> None:
    session = f"/ui/sessions/{session_id}"
    paths = [
        *(f"/ui{section.path}" for section in NAVIGATION),
        "/ui/sessions?status=all",
        session,
        f"{session}?thread=1",
        f"{session}?text=nothing-like-it",
        f"{session}?before=5",
        f"{session}/messages/1",
        f"{session}/delete",
        f"{session}/close",
        "/ui/search?q=question",
        "/ui/search?q=zzzzzzzz",
        "/ui/no/such/page",
    ]
    options = {"viewport": SIZES[size], "color_scheme": scheme}
    with open_window(chromium, server.url, **options) as window:
        window.go("/ui/login")
        found = _find_faults(window.page, "/ui/login")
        window.sign_in()
        for path in paths:
            window.go(path)
            if window.page.locator("[data-live]").count():
                live = window.page.locator("[data-live]")
                expect(live).to_have_attribute("data-state", "live")
            found += _find_faults(window.page, path)
    assert found == []


@pytest.mark.parametrize("size", SIZES)
def test_the_filters_of_a_session_are_folded_on_a_phone_without_script(
    chromium: Browser, server: ServerProcess, session_id: str, size: str
) -> None:
    path, is_phone = f"/ui/sessions/{session_id}", size == "phone"
    options = {"viewport": SIZES[size], "color_scheme": "light"}
    with open_window(chromium, server.url, **options) as window:
        window.sign_in()
        for address, is_folded in ((path, is_phone), (f"{path}?text=reply", False)):
            window.go(address)
            field = window.page.locator("#field-text")
            fold = window.page.locator(".filters-fold > summary")
            expect(field).to_be_visible(visible=not is_folded)
            expect(fold).to_be_visible(visible=is_phone)
        if is_phone:
            window.go(path)
            fold.focus()
            window.page.keyboard.press("Enter")
            expect(field).to_be_visible()


def _find_faults(page: Page, path: str) -> list[tuple[str, str, str]]:
    """Serious and critical findings, and whether the page is wider than the screen."""
    violations = Axe().run(page).response["violations"]
    faults = [
        (path, one["id"], one["nodes"][0]["html"][:200])
        for one in violations
        if one["impact"] in ("serious", "critical")
    ]
    width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return faults + ([(path, "wider than the screen", f"by {width} pixels")] if width > 0 else [])
