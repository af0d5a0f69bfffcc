"""The fleet and what belongs to it, in Chromium against a real server. Run by make test-browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright", reason="run by make test-browser")

from playwright.sync_api import expect

from shared_context_server.models import Agent as SeenAgent
from shared_context_server.models import InstanceSeen
from shared_context_server.settings import Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import open_storage
from tests.browser.conftest import PATIENCE_MS, Agent, Window, open_server, open_window
from tests.browser.test_accessibility import SIZES, _find_faults
from tests.cli.conftest import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

expect.set_options(timeout=PATIENCE_MS)
WAIT_S = 25


class Holder(Agent):
    """An agent that holds a lease named like itself."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, name)
        self.name = name
        taken = self.call("acquire_lease", name=name, ttl_seconds=600)
        self._token = taken["fencing_token"]

    def wait_for(self, other: Holder) -> dict[str, Any]:
        return self.call("acquire_lease", name=other.name, wait_seconds=WAIT_S)

    def release(self) -> None:
        self.call("release_lease", name=self.name, fencing_token=self._token)


@contextmanager
def waits(*pairs: tuple[Holder, Holder]) -> Iterator[None]:
    """The first of each pair waits for the second, which at the end releases what it holds."""
    with ThreadPoolExecutor(len(pairs)) as pool:
        calls = [pool.submit(waiter.wait_for, holder) for waiter, holder in pairs]
        try:
            yield
        finally:
            for holder in {holder for _, holder in pairs}:
                holder.release()
            for call in calls:
                call.result()


def test_who_is_blocked_appears_without_a_reload_and_so_does_a_deadlock(
    server: ServerProcess, overseer: Window
) -> None:
    left, right = Holder(server.url, "left"), Holder(server.url, "right")
    overseer.go("/ui")
    page = overseer.page
    row = page.locator("tr.is-blocked", has_text="right")
    with waits((left, right)):
        expect(row).to_contain_text(re.compile(r"held by\s+right\s+for\s+\d+:\d\d"))
        drawing = page.get_by_role("img", name="left waits for right, held by right.")
        expect(drawing).to_be_visible()
        left_s = page.locator("tr.is-blocked time.left").first
        before = left_s.text_content()
        expect(left_s).not_to_have_text(before or "")
        page.get_by_text("In words").click()
        words = page.get_by_role("cell", name="left", exact=True)
        expect(words.first).to_be_visible()
        with waits((right, left)):
            expect(page.get_by_text("Deadlock:")).to_be_visible()
            expect(page.locator(".wait-graph .node.deadlock")).to_have_count(2)
            expect(words.first).to_be_visible()  # what was unfolded stays so
    expect(page.get_by_text("Deadlock:")).to_have_count(0)


def test_ten_thousand_agents_open_and_are_found(tmp_path: Path, chromium: Browser) -> None:
    with open_server(tmp_path) as server, open_window(chromium, server.url) as window:
        with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
            thread.submit(asyncio.run, _add_agents(server.data_dir, 10_000)).result()
        window.sign_in()
        window.go("/ui")
        page = window.page
        expect(page.get_by_role("link", name="10,000 all")).to_be_visible()
        expect(page.locator("table.fleet-table tbody tr")).to_have_count(50)
        page.keyboard.press("/")
        page.keyboard.type("agent-09999")
        page.keyboard.press("Enter")
        expect(page.locator("table.fleet-table tbody tr")).to_have_count(1)
        page.get_by_role("link", name="10,000 all").click()
        page.get_by_role("link", name="Next").click()
        expect(page.locator("table.fleet-table tbody tr")).to_have_count(50)


async def _add_agents(data_dir: Path, count: int) -> None:
    now = utc_now()
    names = [f"agent-{number:05}" for number in range(count)]
    async with open_storage(Settings(data_dir=data_dir, database_url=None)) as store:
        await store.agents.touch([SeenAgent(name, "claude", now, now) for name in names])
        await store.agents.note_instances(
            [InstanceSeen(name, "", now, "get_time", None) for name in names],
            forget_before=now - timedelta(days=1),
        )


def test_memory_is_deleted_after_its_preview_with_the_keyboard(
    builder: Agent, overseer: Window
) -> None:
    builder.call("set_memory", key="to-delete", value={"a": [1, 2]}, scope="shared")
    overseer.go("/ui/memory/entry?key=to-delete&scope=shared")
    page = overseer.page
    page.get_by_role("link", name="Delete").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("last written by builder")).to_be_visible()
    button = page.get_by_role("button", name="Delete it")
    while not button.evaluate("(one) => one === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/ui/memory\?scope=shared"))
    expect(page.get_by_text("to-delete")).to_have_count(0)


def test_memory_is_edited_with_the_keyboard_and_a_conflict_loses_nothing(
    builder: Agent, overseer: Window
) -> None:
    builder.call("set_memory", key="edited", value={"a": 1}, scope="shared")
    overseer.go("/ui/memory/entry?key=edited&scope=shared")
    page = overseer.page
    page.get_by_role("link", name="Edit").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Value")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("mine")
    page.keyboard.press("Tab")
    page.keyboard.press("T")  # chooses Text
    builder.call("set_memory", key="edited", value="theirs", scope="shared")
    page.get_by_role("button", name="Save as version 2").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("builder has written version 2")
    expect(page.get_by_role("heading", name="Stored now: version 2")).to_be_visible()
    assert _find_faults(page, "a conflict") == []
    expect(page.get_by_label("Your value")).to_have_value("mine")
    page.get_by_role("button", name="Save as version 3").press("Enter")
    expect(page.get_by_text("3, written by overseer")).to_be_visible()
    assert builder.call("get_memory", key="edited", scope="shared")["value"] == "mine"


@pytest.fixture(scope="module")
def busy(builder: Agent) -> str:
    """A session with tasks and memory, beside a deadlock."""
    session_id = builder.create_session("Rewrite the parser")
    for title, depends_on in [("first", []), ("second", [1]), ("third " * 30, [])]:
        builder.call("add_task", session_id=session_id, title=title, depends_on=depends_on)
    builder.call("claim_task", session_id=session_id, ttl_seconds=600)
    value = {"short": 1, "long": "x" * 900, "nested": {"a": ["b"] * 40}}
    for _ in range(2):
        builder.call("set_memory", session_id=session_id, key="plan", value=value, scope="shared")
    return session_id


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_no_page_about_the_fleet_has_a_serious_finding(
    chromium: Browser, server: ServerProcess, busy: str, size: str, scheme: str
) -> None:
    entry = f"key=plan&session_id={busy}&scope=shared"
    one, other = (
        Holder(server.url, f"one {size} {scheme}"),
        Holder(server.url, f"other {size} {scheme}"),
    )
    options = {"viewport": SIZES[size], "color_scheme": scheme}
    with open_window(chromium, server.url, **options) as window, waits((one, other), (other, one)):
        window.sign_in()
        window.go("/ui")
        expect(window.page.get_by_text("Deadlock:")).to_be_visible()
        found = _find_faults(window.page, "/ui")
        for path in (
            "/ui?activity=blocked&q=zzz",
            "/ui/leases",
            f"/ui/tasks?session_id={busy}",
            f"/ui/tasks?session_id={busy}&state=ready",
            f"/ui/tasks/{busy}/2",
            f"/ui/memory?session_id={busy}",
            f"/ui/memory/entry?{entry}",
            f"/ui/memory/edit?{entry}",
            f"/ui/memory/edit?session_id={busy}",
            f"/ui/memory/delete?{entry}",
            "/ui/audit?event_type=none",
        ):
            window.go(path)
            found += _find_faults(window.page, path)
        window.go("/ui/keys")
        window.page.get_by_label("Agent id").fill("somebody")
        window.page.get_by_role("button", name="Create").click()
        expect(window.page.get_by_text("is not shown again")).to_be_visible()
        found += _find_faults(window.page, "a new key")
        window.go("/ui/keys")
        window.page.get_by_role("link", name="Rotate").first.click()
        found += _find_faults(window.page, "the rotation of a key")
        window.page.get_by_role("button", name="Rotate it").click()
        expect(window.page.get_by_text("which works until")).to_be_visible()
        window.go("/ui/keys")
        window.page.get_by_role("link", name="Revoke").first.click()
        found += _find_faults(window.page, "the end of a key")
    assert found == []
