"""Behind pgbouncer in transaction mode, set up as the documentation says."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared_context_server.events.bus import Bus
from shared_context_server.events.link import open_link
from shared_context_server.models import Event, EventKind
from shared_context_server.settings import Settings
from shared_context_server.storage import open_storage
from tests.events.news import wait_for_event, wait_for_resync
from tests.postgres import open_cluster, open_pooler
from tests.storage.builders import (
    ALICE,
    NOON,
    add_message,
    add_session,
    address,
    list_seqs,
    put,
)

pytestmark = pytest.mark.skipif(
    shutil.which("pgbouncer") is None, reason="pgbouncer is not installed"
)
PATIENCE_S = 30.0


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    """Of two replicas' database, with four connections of the pooler's between them."""
    with open_cluster() as cluster, open_pooler(cluster) as pooler:
        url = await asyncio.to_thread(cluster.create_database, "pooled")
        yield Settings(data_dir=tmp_path, **pooler.settings(url))


async def test_replicas_behind_a_pooler_keep_the_promises(settings: Settings) -> None:
    async with open_storage(settings) as one, open_storage(settings) as other:
        await add_session(one)
        await asyncio.gather(
            *(
                add_message(store, idempotency_key=str(number))
                for number in range(100)
                for store in (one, other)
            )
        )
        assert await list_seqs(one, ALICE) == list(range(1, 101))
        await asyncio.gather(
            *(
                store.memory.write(address("k"), ALICE, put(1), now=NOON, guard=None)
                for _ in range(20)
                for store in (one, other)
            )
        )
        entry = await other.memory.get(address("k"), now=NOON, guard=None)
        assert entry.version == 40


async def test_replicas_behind_a_pooler_wake_each_other(settings: Settings) -> None:
    async with open_storage(settings) as one, open_storage(settings) as other:
        one_bus, other_bus = Bus(), Bus()
        async with open_link(one, one_bus), open_link(other, other_bus):
            await add_session(one)
            with other_bus.subscribe(lambda event: True, session_id="session_1") as subscription:
                async with asyncio.timeout(PATIENCE_S):
                    await wait_for_resync(subscription)
                    added = await add_message(one)
                    event = Event(EventKind.MESSAGE_ADDED, "session_1", seq=added.seq)
                    one_bus.publish(event)
                    await wait_for_event(subscription, event)
