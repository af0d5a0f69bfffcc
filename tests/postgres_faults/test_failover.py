"""The machine of the primary falls silent and a standby takes its place."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared_context_server.errors import Unavailable
from shared_context_server.events.bus import Bus
from shared_context_server.events.link import open_link
from shared_context_server.models import EventKind
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from tests.events.news import wait_for_resync
from tests.postgres import Cluster, open_cluster
from tests.postgres_faults.replicas import Replicas, set_read_only, until
from tests.storage.builders import ALICE, add_message, add_session, list_seqs

TIMEOUT_S = 1.0
PATIENCE_S = 30.0


@dataclass
class Pair:
    primary: Cluster
    standby: Cluster

    def url(self) -> str:
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres@{hosts}/shared_context?target_session_attrs=read-write"


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """A primary that acknowledges what its standby has."""
    with open_cluster(is_durable=True) as primary:
        primary.create_database("shared_context")
        with open_cluster(is_durable=True, standby_of=primary) as standby:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
            try:
                yield Pair(primary, standby)
            finally:
                primary.thaw()


@pytest.fixture
def settings(pair: Pair, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, database_url=pair.url(), postgres_timeout=TIMEOUT_S)


async def add_for_sure(store: Store, key: str) -> int:
    """Its seq, repeated until there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return (await add_message(store, idempotency_key=key)).seq
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_standby_that_takes_over_is_found_and_nothing_is_lost(
    pair: Pair, settings: Settings
) -> None:
    async with open_storage(settings) as one, open_storage(settings) as other:
        bus = Bus()
        async with open_link(other, bus):
            await add_session(one)
            with bus.subscribe(lambda event: True, session_id="session_1") as subscription:
                acknowledged = [await add_for_sure(one, str(number)) for number in range(20)]
                pair.primary.freeze()
                with pytest.raises(Unavailable):
                    await add_message(one, idempotency_key="20")
                await asyncio.to_thread(pair.standby.execute, "SELECT pg_promote()")
                acknowledged.append(await add_for_sure(one, "20"))
                assert acknowledged == list(range(1, 22))
                assert await list_seqs(other, ALICE) == acknowledged
                # Who waits at the other one hears of what the new primary takes.
                async with asyncio.timeout(PATIENCE_S):
                    await wait_for_resync(subscription)
                    seq = await add_for_sure(one, "21")
                    told: list[int | None] = []
                    while seq not in told:
                        news = await subscription.wait(PATIENCE_S)
                        assert news is not None
                        told += [e.seq for e in news.events if e.kind is EventKind.MESSAGE_ADDED]
                        if news.needs_resync:  # it found the new primary after that
                            told += await list_seqs(other, ALICE)


async def test_a_primary_that_takes_no_writes_any_more_is_not_used(
    replicas: Replicas, tmp_path: Path
) -> None:
    url = f"{replicas.url}?target_session_attrs=read-write"
    async with open_storage(Settings(data_dir=tmp_path, database_url=url)) as store:
        session_id = f"session_{secrets.token_hex(8)}"
        await add_session(store, session_id)
        await set_read_only(replicas, "on")
        try:
            await until(lambda: is_unavailable(store, session_id))
            for _ in range(3):
                assert await is_unavailable(store, session_id)
        finally:
            await set_read_only(replicas, "off")
        await replicas.recover()
        assert (await add_message(store, session_id)).seq >= 1


async def is_unavailable(store: Store, session_id: str) -> bool:
    try:
        await add_message(store, session_id)
    except Unavailable:
        return True
    return False
