"""What a session costs on PostgreSQL as it grows, and what searching a large one takes of a replica."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
import httpx

from bench.commits import WRITER, add_session, bench_settings, new_message
from bench.footprint import rss_mb
from bench.search_texts import make_texts
from bench.servers import Server
from bench.tables import print_table
from bench.throughput import HEADERS
from shared_context_server import policy
from shared_context_server.models import Session
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.contract import MessageQuery
from shared_context_server.storage.postgres import open_postgres

SIZES = (1_000, 10_000, 100_000)
CALLS = 300
LISTED = 50
SEARCHES = 50
STEP = 5_000

_FILL = """
    SELECT (append_message($1, $2, 'filler', 'generic', 'public', '[]', '{}', text, $2,
        NULL, NULL, NULL)).seq
    FROM unnest($3::text[]) AS text"""


_SIZE = "SELECT pg_total_relation_size('messages') + pg_total_relation_size('audience')"


async def fill(connection: asyncpg.Connection, session: Session, texts: list[str]) -> None:
    created_at = encode_time(session.created_at)
    for start in range(0, len(texts), STEP):
        await connection.execute(_FILL, session.id, created_at, texts[start : start + STEP])


async def time_calls(call: Callable[[], Awaitable[object]], count: int = CALLS) -> float:
    """Median, ms."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


async def report(url: str) -> str:
    """Grow a session to the largest of SIZES; its id."""
    guard = partial(policy.require_session_read, WRITER)
    texts = make_texts(max(SIZES), random.Random(1))
    rows = []
    async with open_postgres(bench_settings(url)) as store:
        connection = await asyncpg.connect(url)
        session = await add_session(store, "growing")
        for number in range(LISTED - 1):
            listed = await add_session(store, f"listed_{number}")
            await store.messages.append(new_message(listed.id), guard)
        size = 0
        for goal in SIZES:
            await fill(connection, session, texts[size:goal])
            size = goal
            await store.sessions.set_cursor(session.id, WRITER, size // 2, guard)
            page = MessageQuery(limit=50)
            behind = MessageQuery(limit=50, after_seq=size // 2)
            costs = [
                await time_calls(lambda: store.messages.append(new_message(session.id), guard)),
                await time_calls(
                    lambda: store.messages.list_visible(session.id, WRITER, page, guard)  # noqa: B023
                ),
                await time_calls(
                    lambda: store.messages.list_visible(session.id, WRITER, behind, guard)  # noqa: B023
                ),
                await time_calls(
                    lambda: store.sessions.list_visible(
                        WRITER, status=None, created_by=None, limit=LISTED
                    ),
                    count=CALLS // 10,
                ),
            ]
            size += CALLS
            size_mb = await connection.fetchval(_SIZE) / 2**20
            rows.append([f"{goal:,}", *(f"{cost:.2f} ms" for cost in costs), f"{size_mb:.0f} MB"])
        await connection.close()
    print_table(
        f"One call at a time to the storage, median of {CALLS}",
        [
            "messages in the session",
            "add_message",
            "get_messages, newest 50",
            "50 after a cursor",
            f"list_sessions, {LISTED} with unread",
            "on disk",
        ],
        rows,
    )
    return session.id


async def report_search(server: Server, session_id: str) -> None:
    """Of a server that has not searched this session yet."""
    url = f"http://127.0.0.1:{server.port}/mcp/tool/search_context"
    body = {"session_id": session_id, "query": "database migration", "limit": 5}
    async with httpx.AsyncClient(headers=HEADERS, timeout=120) as client:

        async def search() -> None:
            (await client.post(url, json=body)).raise_for_status()

        before_mb = rss_mb(server.pid)
        first_ms = await time_calls(search, count=1)
        after_mb = rss_mb(server.pid)
        further_ms = await time_calls(search, count=SEARCHES)
    print_table(
        f"Searching the session of {max(SIZES):,} messages in a replica",
        ["first search", f"further ones, median of {SEARCHES}", "memory before", "after"],
        [
            [
                f"{first_ms / 1000:.2f} s",
                f"{further_ms:.0f} ms",
                f"{before_mb:.0f} MB",
                f"{after_mb:.0f} MB",
            ]
        ],
    )
