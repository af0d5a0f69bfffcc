"""Message retention of a real process that is killed in the middle of it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from shared_context_server import server as composition
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.server import open_server
from shared_context_server.services.retention import MESSAGES_EXPIRED
from shared_context_server.settings import Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import open_storage, recount_storage
from shared_context_server.storage.contract import AuditQuery
from shared_context_server.storage.rules import expiry
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.cli.conftest import PATIENCE_S, Run, Serve
from tests.processes.test_load import call, http_of
from tests.processes.test_search_index import wait_for_progress
from tests.storage.builders import ALICE, BOB, add_message, add_session, read_whole_log
from tests.until import until

OLD, NEW = 3_000, 20


def retain_soon_in_small_steps() -> None:
    """In the server: not ten minutes after its start, and so that a removal takes a while."""
    composition.RETENTION_INTERVAL_S = 0.05
    expiry.STEP_ROWS = 25


async def fill(settings: Settings, folder: IndexFolder) -> None:
    """Old messages and new ones, all of which the search index has."""
    async with open_server(settings) as server:
        store, now = server.services.store, utc_now()
        await add_session(store, created_at=now - timedelta(days=4))
        for count, content, at in ((OLD, "walrus", now - timedelta(days=3)), (NEW, "heron", now)):
            added = [
                add_message(store, sender=(ALICE, BOB)[number % 2], content=content, created_at=at)
                for number in range(count)
            ]
            await asyncio.gather(*added)
        await wait_for_progress(folder, OLD + NEW)


async def require_consistent(settings: Settings, first_seq: int) -> None:
    """The log has no gap from first_seq on, and nothing is counted that is not there."""
    async with open_storage(settings) as store:
        session = await store.sessions.get("session_1")
        seqs = [message.seq for message in await read_whole_log(store)]
        assert seqs == list(range(first_seq, session.last_seq + 1))
        assert session.first_seq == first_seq
        usage = await store.sessions.measure_usage("session_1")
        assert usage.messages == len(seqs)
        audited = await store.audit.list_newest(AuditQuery(limit=9, event_type=MESSAGES_EXPIRED))
        assert [entry.details["messages"] for entry in audited] == [OLD]
    assert recount_storage(settings, mends=False) == []


async def test_a_removal_is_continued_after_its_process_was_killed(
    serve: Serve, scs: Run, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    folder = IndexFolder(settings.data_dir / "search-index", settings.storage_url)
    await fill(settings, folder)
    often = {"prepare": retain_soon_in_small_steps, "MESSAGE_RETENTION_DAYS": "1"}
    with closing(sqlite3.connect(database_path(settings))) as connection:

        def find_first_seq() -> int:
            (found,) = connection.execute("SELECT first_seq FROM sessions").fetchone()
            return int(found)

        with serve(is_ready=False, **often) as server:
            await until(lambda: find_first_seq() > 1)
            server.process.kill()
            server.process.wait(PATIENCE_S)
        reached = find_first_seq()
        assert 1 < reached <= OLD
        await require_consistent(settings, reached)
        with serve(**often) as server:
            await until(lambda: find_first_seq() > OLD)
            async with http_of(server, "bob") as client:
                place = {"session_id": "session_1"}
                added = await call(client, "add_message", **place, content="heron")
                assert added["seq"] == OLD + NEW + 1
                await wait_for_progress(folder, added["message_id"])
                shown = (await call(client, "get_session", **place))["session"]
                assert (shown["first_seq"], shown["message_count"]) == (OLD + 1, NEW + 1)
                for query, found in (("walrus", 0), ("heron", NEW + 1)):
                    answer = await call(client, "search_context", **place, query=query, limit=100)
                    assert len(answer["results"]) == found
    found = [line.split("\t") for line in scs("doctor").stdout.splitlines()]
    verdicts = {subject: verdict for verdict, subject, *_ in found}
    checked = ("database", "search index", "counters", "audit log")
    assert [verdicts[subject] for subject in checked] == ["ok"] * len(checked)
    await require_consistent(settings, OLD + 1)
