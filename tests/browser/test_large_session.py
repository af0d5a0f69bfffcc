"""A session of a million messages opens within a second. Run by make test-browser."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="run by make test-browser")

from playwright.sync_api import expect

from tests.browser.conftest import Agent, Window, open_server, open_window
from tests.settings import API_KEY

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MESSAGES = 1_000_000
FIRST_PAINT_MS = 1000
LOADS = 5  # the fastest counts: others may use the machine
_FILL = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
    INSERT INTO messages (
        session_id, seq, sender, sender_type, content, visibility, recipients, metadata,
        parent_message_id, created_at, sender_instance, ack)
    SELECT :session_id, n, 'agent-' || (n % 20), 'generic', 'message number ' || n, 'public', '[]',
        '{}', NULL, :begin_us + n * 1000, '', ''
    FROM numbers"""


def fill(path: Path, session_id: str) -> None:
    """Write the messages by SQL: the schema's triggers do what they do for any message."""
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        (now_us,) = connection.execute("SELECT created_at FROM sessions").fetchone()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            _FILL,
            {
                "count": MESSAGES,
                "session_id": session_id,
                "begin_us": now_us - MESSAGES * 1000,
            },
        )
        connection.execute("COMMIT")
    connection.close()


@pytest.mark.timeout(300)  # writing the messages takes most of it
def test_a_session_of_a_million_messages_opens_within_a_second(
    chromium: Browser, tmp_path: Path
) -> None:
    with open_server(tmp_path) as server:
        session_id = Agent(server.url, "builder").create_session("A million messages")
        data_dir = server.data_dir
        server.stop()
    (path,) = data_dir.glob("*.db")
    fill(path, session_id)
    # Without the index: it would be made now, for minutes.
    with open_server(tmp_path, SEARCH_INDEX="false") as server:
        for key, agent_id in ((API_KEY, "ann"), ("the-admins-key-0123456789", "overseer")):
            with open_window(chromium, server.url) as window:
                window.sign_in(key, agent_id)
                painted_ms = [_open(window, session_id) for _ in range(LOADS)]
                print(f"first paint as {agent_id}, ms:", *map(round, painted_ms))
                assert min(painted_ms) < FIRST_PAINT_MS
                window.go(f"/ui/sessions/{session_id}?before=500000&agent=agent-7")
                expect(window.page.locator("#log > .message")).to_have_count(50)


def _open(window: Window, session_id: str) -> float:
    """Open the session; the time of the first paint in ms."""
    window.go(f"/ui/sessions/{session_id}")
    expect(window.page.locator("#log > .message")).to_have_count(50)
    expect(window.page.locator("#m1000000")).to_be_in_viewport()
    assert "1,000,000 messages" in window.page.inner_text("main")
    painted_ms: float = window.page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    return painted_ms
