"""The fleet, and the leases: who is blocked on whom, as it is shown to whom."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from shared_context_server.models import Agent, InstanceSeen
from shared_context_server.server import Server
from shared_context_server.steady_time import utc_now
from tests.rest.conftest import call, client_of, create_session
from tests.settings import API_KEY
from tests.ui.conftest import text_of
from tests.until import until

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{7*7}}"
ID = re.compile(r'id="([^"]+)"')


@asynccontextmanager
async def waiting(
    server: Server, client: httpx.AsyncClient, tool: str, **arguments: Any
) -> AsyncIterator[None]:
    """Somebody who waits with this call for the length of the block."""
    before = server.services.bus.subscriber_count
    task = asyncio.create_task(call(client, tool, **arguments))
    await until(lambda: server.services.bus.subscriber_count > before)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def other(server: Server, agent_id: str) -> httpx.AsyncClient:
    return client_of(server, X_API_Key=API_KEY, X_Agent_ID=agent_id)


def rows_of(page: httpx.Response) -> list[str]:
    """The agents of the table, from top to bottom."""
    found = re.findall(r'<strong class="agent-name clamp">(.*?)</strong>', page.text)
    return [html.unescape(name) for name in found]


async def test_nobody_yet_says_how_to_connect(overseer: httpx.AsyncClient) -> None:
    page = await overseer.get("/ui")
    assert page.status_code == 200
    assert "No agent has called yet" in text_of(page)
    assert "scs client-config" in page.text


async def test_agents_that_do_the_same_keep_their_place(
    server: Server, overseer: httpx.AsyncClient
) -> None:
    names = ["delta", "alpha", "charlie", "bravo"]
    for newest in names:
        async with other(server, newest) as client:
            await call(client, "get_time")
        seen = [name for name in rows_of(await overseer.get("/ui")) if name in names]
        assert seen == sorted(seen)
    assert seen == sorted(names)


async def test_who_is_blocked_comes_first_with_whom_it_waits_for(
    server: Server, agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    await call(agent, "set_status", text="Moving the tokenizer", state="working")
    await call(agent, "acquire_lease", session_id=session_id, name="repo", ttl_seconds=600)
    async with (
        other(server, "tester") as tester,
        other(server, "outsider") as outsider,
        waiting(
            server, tester, "acquire_lease", session_id=session_id, name="repo", wait_seconds=99
        ),
    ):
        await call(outsider, "get_time")
        page = await overseer.get("/ui")
        blocked = await overseer.get("/ui?activity=blocked")
        found = await overseer.get("/ui?q=tokenizer")
        leases = await overseer.get("/ui/leases")
        of_session = await overseer.get(f"/ui/leases?session_id={session_id}")
    text = text_of(page)
    assert rows_of(page)[0] == "tester"
    assert set(rows_of(page)) == {"tester", "worker-7", "outsider"}
    assert "Waits for repo , held by worker-7" in text
    assert "tester waits for repo, held by worker-7." in text  # the drawing in words
    assert '<svg class="wait-graph"' in page.text
    assert f'href="/ui/sessions/{session_id}"' in page.text
    assert "1 blocked" in text
    assert (rows_of(blocked), rows_of(found)) == (["tester"], ["worker-7"])
    for shown in (leases, of_session):
        assert "worker-7" in text_of(shown)
        assert '<time class="left"' in shown.text
    ids = ID.findall(page.text)
    assert len(ids) == len(set(ids))


async def test_a_deadlock_is_named(
    server: Server, agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    await call(agent, "acquire_lease", name="left", ttl_seconds=600)
    async with other(server, "tester") as tester:
        await call(tester, "acquire_lease", name="right", ttl_seconds=600)
        async with (
            waiting(server, agent, "acquire_lease", name="right", wait_seconds=99),
            waiting(server, tester, "acquire_lease", name="left", wait_seconds=99),
        ):
            pages = [await overseer.get(path) for path in ("/ui", "/ui/leases")]
    for page in pages:
        assert "Deadlock: " in text_of(page)
        assert page.text.count('class="edge deadlock"') == 2


async def test_what_a_session_hides_is_not_on_the_pages_of_others(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    created = await call(
        agent, "create_session", purpose="Secret plan", access="invited", participants=["tester"]
    )
    session_id = created["session_id"]
    await call(agent, "add_task", session_id=session_id, title="Hidden task")
    await call(agent, "claim_task", session_id=session_id, ttl_seconds=600)
    await call(agent, "acquire_lease", session_id=session_id, name="hidden-lease")
    async with (
        other(server, "tester") as tester,
        waiting(
            server,
            tester,
            "acquire_lease",
            session_id=session_id,
            name="hidden-lease",
            wait_seconds=99,
        ),
    ):
        for path in ("/ui", "/ui/leases", "/ui/tasks"):
            mine, theirs = await overseer.get(path), await person.get(path)
            assert re.search("Secret plan|hidden-lease", mine.text)
            assert re.search("Secret|[Hh]idden", text_of(theirs)) is None
            assert session_id not in theirs.text
        refused = await person.get(f"/ui/leases?session_id={session_id}")
    assert refused.status_code == 404


async def test_names_and_words_of_agents_are_shown_as_text(
    server: Server, overseer: httpx.AsyncClient
) -> None:
    now = utc_now()
    agents = server.services.store.agents
    await agents.touch([Agent(HOSTILE, HOSTILE, now, now)])
    seen = InstanceSeen(HOSTILE, HOSTILE, now, "get_time", None)
    await agents.note_instances([seen], forget_before=now - timedelta(days=1))
    page = await overseer.get("/ui")
    assert rows_of(page) == [HOSTILE]
    assert "<script>alert" not in page.text
    assert "<img" not in page.text
    searched = await overseer.get("/ui?q=" + quote(HOSTILE))
    assert rows_of(searched) == [HOSTILE]
    assert "<script>alert" not in searched.text


async def test_ten_thousand_agents_are_paged_and_counted(
    server: Server, overseer: httpx.AsyncClient
) -> None:
    now = utc_now()
    names = [f"agent-{number:05}" for number in range(10_000)]
    agents = server.services.store.agents
    await agents.touch([Agent(name, "claude", now, now) for name in names])
    await agents.note_instances(
        [InstanceSeen(name, "", now, "get_time", None) for name in names],
        forget_before=now - timedelta(days=1),
    )
    page = await overseer.get("/ui")
    assert len(rows_of(page)) == 50
    assert "10,000 all" in text_of(page)
    assert len(page.content) < 200_000
    following = re.search(r'href="([^"]*cursor=[^"]*)" rel="next"', page.text)
    assert following is not None
    second = await overseer.get(html.unescape(following[1]))
    assert rows_of(second) == names[50:100]


@pytest.mark.parametrize("query", ["activity=", "q=%20"])
async def test_filters_that_name_nothing_filter_nothing(
    query: str, agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    await call(agent, "get_time")
    assert rows_of(await overseer.get(f"/ui?{query}")) == ["worker-7"]
