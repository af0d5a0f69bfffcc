"""What a statement reads must not grow with what it does not ask for: counted in rows of its plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from shared_context_server.models import Caller, TaskState, Visibility
from shared_context_server.storage import Store
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.contract import MessageQuery
from shared_context_server.storage.postgres.messages import Messages
from shared_context_server.storage.postgres.tasks import Tasks
from tests.storage.builders import ADMIN, BOB, add_session, allow, at, run_on

SIZE = 20_000
ENOUGH_ROWS = 3_500  # some times what a row of time_ranges covers, and far below SIZE

_FILL = """
    INSERT INTO messages (session_id, seq, sender, sender_type, visibility, created_at, recipients,
                          metadata, content)
        SELECT 'session_1', n, 'agent' || n % 5, 'x',
               CASE WHEN n % 10 = 0 THEN 'private' ELSE 'public' END,
               $1::bigint + n * 1000000::bigint, '["bob"]', '{}', 'x'
        FROM generate_series(1, $2::int) AS n"""


class Explaining:
    """A connection that notes what the plans of its statements have read."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self.rows = 0
        self.scanned: set[str] = set()

    async def _explain(self, sql: str, *arguments: Any) -> None:
        text = await self._connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments)
        for node in _scans(json.loads(text)[0]["Plan"]):
            read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            self.rows += read * node["Actual Loops"]
            if node["Node Type"] == "Seq Scan":
                self.scanned.add(node["Relation Name"])

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        await self._explain(sql, *arguments)
        return await self._connection.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> Any:
        await self._explain(sql, *arguments)
        return await self._connection.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        await self._explain(sql, *arguments)
        return await self._connection.fetchval(sql, *arguments)


def _scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes that read tables and indexes; the others handle the same rows again."""
    if not plan.get("Plans"):
        yield plan
    for part in plan.get("Plans", []):
        yield from _scans(part)


@pytest.fixture
async def explaining(store: Store, connection: asyncpg.Connection[Any]) -> Explaining:
    """Beside a session of many messages."""
    await add_session(store)
    await connection.execute(_FILL, encode_time(at(0)), SIZE, timeout=None)
    await connection.execute("VACUUM ANALYZE")  # all in one transaction leaves many dead rows
    return Explaining(connection)


@pytest.mark.parametrize(
    "caller, query, total",
    [
        (BOB, {"sender": "agent1"}, SIZE // 5),
        (BOB, {"sender": "agent0", "visibility": Visibility.PRIVATE}, SIZE // 10),
        (BOB, {"start_time": at(101), "end_time": at(200)}, 100),
        (BOB, {"start_time": at(101), "end_time": at(SIZE - 100)}, SIZE - 200),
        (BOB, {"start_time": at(SIZE - 99)}, 100),
        (BOB, {"sender": "agent1", "end_time": at(SIZE - 100)}, SIZE // 5 - 20),
        (ADMIN, {"start_time": at(101), "end_time": at(200)}, 100),
        (ADMIN, {"start_time": at(101), "end_time": at(SIZE - 100)}, SIZE - 200),
    ],
    ids=[
        "one sender",
        "private ones of one sender",
        "an early range",
        "a wide range",
        "since a time",
        "one sender up to a time",
        "an early range for an admin",
        "a wide range for an admin",
    ],
)
async def test_a_page_reads_what_lies_at_the_ends_of_what_it_asks_for(
    explaining: Any, caller: Caller, query: dict[str, Any], total: int
) -> None:
    page = await run_on(
        explaining,
        Messages._list_in_snapshot,
        "session_1",
        caller,
        MessageQuery(limit=20, **query),
        allow,
    )
    assert (len(page.messages), page.total_count) == (20, total)
    assert explaining.rows < ENOUGH_ROWS
    assert not explaining.scanned & {"messages", "audience"}


async def test_counting_by_sender_reads_some_rows_a_sender(explaining: Any) -> None:
    counts = await run_on(
        explaining, Messages.count_by_sender, "session_1", BOB, after_seq=10, guard=allow
    )
    assert sum(count.count for count in counts) == SIZE - 10
    assert explaining.rows < 200
    assert not explaining.scanned & {"messages", "audience"}


_ADD_TASKS = """
    INSERT INTO tasks (
        session_id, id, version, state, priority, assignee, waiting_for, created_by, created_at,
        instance, fencing_token, expires_at, depends_on, title, metadata, body, result)
    SELECT 'session_1', n, 1,
        CASE WHEN n <= $1 - 400 THEN 'done' WHEN n <= $1 - 200 THEN 'claimed' ELSE 'ready' END,
        n % 3, CASE n % 2 WHEN 0 THEN 'bob' ELSE '' END, 0, 'alice', n, '', 1,
        9000000000000000 + n, '[]', 't', '{}', '', 'null'
    FROM generate_series(1, $1::int) AS n"""


async def test_a_worker_reads_nothing_of_what_is_done(
    explaining: Any, connection: asyncpg.Connection[Any]
) -> None:
    await connection.execute(_ADD_TASKS, SIZE, timeout=None)
    await connection.execute("VACUUM ANALYZE")  # all in one transaction leaves many dead rows
    for assignee in (None, "bob"):
        for state in TaskState:
            await run_on(
                explaining,
                Tasks.list_tasks,
                "session_1",
                state=state,
                assignee=assignee,
                after_id=0,
                limit=20,
                now=at(0),
                guard=allow,
            )
    outlook = await run_on(explaining, Tasks.look, "session_1", BOB, now=at(0))
    assert outlook.is_ready
    assert explaining.rows < ENOUGH_ROWS
    assert "tasks" not in explaining.scanned
