"""Entries that a process of an older version adds to the audit log after an update are chained too."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import asyncpg

from shared_context_server.services.audit_chain import verify_audit_log
from shared_context_server.settings import Settings
from shared_context_server.storage import Store
from shared_context_server.storage.contract import AuditQuery
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.storage.builders import at, make_audit

# As all versions before the chain have added entries.
_ADD = """
    INSERT INTO audit_log (created_at, event_type, agent_id, session_id, details)
    VALUES (1, 'older', 'alice', NULL, '{}')"""


async def add_as_older_version(settings: Settings) -> None:
    if settings.storage_url.startswith("postgresql"):
        connection = await asyncpg.connect(settings.storage_url, statement_cache_size=0)
        await connection.execute(_ADD)
        await connection.close()
        return
    with closing(sqlite3.connect(database_path(settings))) as other, other:
        other.execute(_ADD)


async def test_entries_of_an_older_process_are_chained_by_the_next_that_writes(
    store: Store, any_settings: Settings
) -> None:
    await store.audit.add(make_audit())
    for _ in range(2):
        await add_as_older_version(any_settings)
    report = await verify_audit_log(any_settings)
    assert report.is_whole
    assert report.entries + report.not_yet_chained == 3
    await store.audit.add(make_audit())
    assert (await verify_audit_log(any_settings)).entries == 4
    await add_as_older_version(any_settings)
    await store.maintenance.purge(
        expired_before=at(-9), idempotency_before=at(-9), audit_before=at(-9)
    )
    report = await verify_audit_log(any_settings)
    assert (report.is_whole, report.entries) == (True, 5)
    entries = await store.audit.list_newest(AuditQuery(limit=9))
    assert [entry.id for entry in entries] == [5, 4, 3, 2, 1]
