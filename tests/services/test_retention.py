"""SESSION_RETENTION_DAYS: which sessions it deletes, and what shows that it has."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from shared_context_server import server as composition
from shared_context_server.models import EventKind
from shared_context_server.server import open_server
from shared_context_server.services import retention
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import AuditQuery
from tests.settings import make_settings
from tests.storage.builders import add_message, add_session

DAY = timedelta(days=1)


async def test_idle_sessions_are_deleted_told_recorded_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EXAMINED_AT_ONCE", 2)
    async with open_server(make_settings(tmp_path, session_retention_days=7)) as server:
        store, now = server.services.store, utc_now()
        for number in range(5):
            await add_session(store, f"session_{number}", created_at=now - 8 * DAY)
        await add_message(store, "session_3", created_at=now - 6 * DAY)
        with server.services.bus.subscribe(
            lambda event: event.kind is EventKind.SESSION_DELETED
        ) as subscription:
            await composition.apply_retention(server.services, server.metrics)
            news = await subscription.wait(30)
        assert news is not None
        gone = ["session_0", "session_1", "session_2", "session_4"]
        assert [event.session_id for event in news.events] == gone
        audited = await store.audit.list_newest(AuditQuery(limit=9, event_type=retention.EXPIRED))
        assert sorted(str(entry.session_id) for entry in audited) == gone
        assert all(entry.details == {"retention_days": 7} for entry in audited)
        assert (await store.sessions.get("session_3")).last_seq == 1
        assert b"scs_sessions_expired_total 4.0" in server.metrics.render()


async def test_without_the_setting_nothing_is_deleted(tmp_path: Path) -> None:
    async with open_server(make_settings(tmp_path)) as server:
        await add_session(server.services.store, created_at=utc_now() - 30_000 * DAY)
        await composition.apply_retention(server.services, server.metrics)
        await server.services.store.sessions.get("session_1")
