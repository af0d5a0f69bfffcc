"""The space of deleted rows is given back in the background, while others write."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from shared_context_server import server as composition
from shared_context_server.observability.metrics import Metrics
from shared_context_server.server import open_server
from shared_context_server.storage.sqlite import vacuum
from tests.settings import make_settings
from tests.storage.builders import (
    CAROL,
    NOON,
    add_message,
    add_session,
    allow,
    list_seqs,
    make_audit,
)

DELETED = 1_000  # messages of 1,000 characters


def read_counter(metrics: Metrics) -> float:
    return float(
        re.findall(rb"^scs_vacuumed_bytes_total (\S+)$", metrics.render(), re.MULTILINE)[0]
    )


async def test_free_space_is_given_back_counted_and_shown_while_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "WORTHWHILE_BYTES", 500_000)
    monkeypatch.setattr(vacuum, "_KEPT_BYTES", 0)
    async with open_server(make_settings(tmp_path)) as server:
        store, metrics = server.services.store, server.metrics
        for name in ("deleted", "kept"):
            await add_session(store, name)
        await composition.vacuum(server.services, metrics)
        assert read_counter(metrics) == 0
        for _ in range(DELETED // 500):
            await asyncio.gather(
                *(add_message(store, "deleted", content="x" * 1000) for _ in range(500)),
                add_message(store, "kept"),
            )
        await store.sessions.delete("deleted", allow, make_audit())

        vacuuming = asyncio.create_task(composition.vacuum(server.services, metrics))
        written = 0
        while not vacuuming.done():
            await add_message(store, "kept")
            written += 1
        await vacuuming
        assert written > 1
        assert read_counter(metrics) > DELETED * 500  # the new messages take some
        await composition.vacuum(server.services, metrics)
        assert (await store.maintenance.get_stats(active_since=NOON)).free_bytes < 100_000
        kept = DELETED // 500 + written
        assert (await list_seqs(store, CAROL, "kept"))[-1] == kept


async def test_what_the_next_messages_fill_again_stays(tmp_path: Path) -> None:
    async with open_server(make_settings(tmp_path)) as server:
        store = server.services.store
        await add_session(store)
        await asyncio.gather(*(add_message(store, content="x" * 1000) for _ in range(500)))
        await store.sessions.delete("session_1", allow, make_audit())
        assert await store.maintenance.release_free_space() == 0
