"""SESSION_RETENTION_DAYS and MESSAGE_RETENTION_DAYS: what they remove, and what shows that they have."""

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
from shared_context_server.storage.rules import expiry
from tests.settings import make_settings
from tests.storage.builders import BOB, add_message, add_session, allow, make_audit

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
        store, long_ago = server.services.store, utc_now() - 30_000 * DAY
        await add_session(store, created_at=long_ago)
        await add_message(store, created_at=long_ago)
        await composition.apply_retention(server.services, server.metrics)
        assert (await store.sessions.get("session_1")).first_seq == 1


async def test_old_messages_are_removed_told_recorded_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In open sessions and closed ones, which stay. A second run, as of another server, does nothing."""
    monkeypatch.setattr(retention, "EXAMINED_AT_ONCE", 2)
    monkeypatch.setattr(expiry, "STEP_ROWS", 2)
    async with open_server(make_settings(tmp_path, message_retention_days=7)) as server:
        store, now = server.services.store, utc_now()
        for number in range(5):
            await add_session(store, f"session_{number}", created_at=now - 20 * DAY)
            for day in range(number):
                await add_message(
                    store, f"session_{number}", created_at=now - (9.5 - day) * DAY, sender=BOB
                )
        await store.sessions.close("session_2", now, allow, make_audit())
        with server.services.bus.subscribe(
            lambda event: event.kind is EventKind.MESSAGES_EXPIRED
        ) as subscription:
            for _ in range(2):
                await composition.apply_retention(server.services, server.metrics)
            news = await subscription.wait(30)
        assert news is not None
        removed = {"session_1": 1, "session_2": 2, "session_3": 3, "session_4": 3}
        told = {event.session_id: event.seq for event in news.events if event.seq is not None}
        assert told == {name: count + 1 for name, count in removed.items()}
        for name, count in removed.items():
            session = await store.sessions.get(name)
            assert (session.first_seq, session.last_seq) == (count + 1, int(name[-1]))
        audited = await store.audit.list_newest(
            AuditQuery(limit=9, event_type=retention.MESSAGES_EXPIRED)
        )
        assert {entry.session_id: entry.details for entry in audited} == {
            name: {"retention_days": 7, "first_seq": 1, "last_seq": count, "messages": count}
            for name, count in removed.items()
        }
        assert len(audited) == len(removed)
        assert b"scs_messages_expired_total 9.0" in server.metrics.render()
