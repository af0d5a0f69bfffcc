"""The contract of storage/base.py: agents, audit, figures, and removing what is old."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from shared_context_server.errors import MemoryNotFound
from shared_context_server.models import (
    Agent,
    AuditEntry,
    Credential,
    JsonObject,
    Permission,
    Visibility,
)
from shared_context_server.storage import Storage
from shared_context_server.storage.base import AuditQuery, PresenceChange
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    NOON,
    Refusal,
    add_message,
    add_session,
    address,
    allow,
    at,
    make_audit,
    make_caller,
    put,
    refuse,
)


def seen(agent_id: str, seconds: float, agent_type: str = "claude") -> Agent:
    return Agent(agent_id, agent_type, first_seen=at(seconds), last_seen=at(seconds))


# Agents


async def test_agents_are_listed_by_when_they_were_last_seen(storage: Storage) -> None:
    await storage.touch_agents([])
    assert await storage.list_agents(None, ALICE, None, limit=99) == []
    await storage.touch_agents([seen("a", 1), seen("c", 3), seen("b", 3), seen("d", 2)])
    agents = await storage.list_agents(None, ALICE, None, limit=99)
    assert agents == [seen("c", 3), seen("b", 3), seen("d", 2), seen("a", 1)]


async def test_touching_moves_last_seen_forward_only(storage: Storage) -> None:
    await storage.touch_agents([seen("a", 5, "claude")])
    await storage.touch_agents([seen("a", 9, "gpt")])
    latest = Agent("a", "gpt", first_seen=at(5), last_seen=at(9))
    assert await storage.list_agents(None, ALICE, None, limit=99) == [latest]
    await storage.touch_agents([seen("a", 7, "late")])
    assert await storage.list_agents(None, ALICE, None, limit=99) == [latest]


async def test_agents_of_a_session_are_its_known_participants(storage: Storage) -> None:
    await storage.touch_agents([seen("alice", 1), seen("bob", 2), seen("zoe", 3), seen("x", 4)])
    await add_session(storage, invited=("bob", "never_seen"))
    await add_message(storage, sender=make_caller("zoe"))
    agents = await storage.list_agents("session_1", ALICE, allow, limit=99)
    assert [agent.agent_id for agent in agents] == ["zoe", "bob", "alice"]
    with pytest.raises(Refusal):
        await storage.list_agents("session_1", ALICE, refuse, limit=99)


async def test_agents_of_a_session_are_those_whose_messages_the_caller_sees(
    storage: Storage,
) -> None:
    await storage.touch_agents([seen("alice", 1), seen("bob", 2), seen("zoe", 3)])
    await add_session(storage)
    await add_message(
        storage, sender=make_caller("zoe"), visibility=Visibility.PRIVATE, recipients=("bob",)
    )
    for caller, expected in (
        (ALICE, ["alice"]),
        (BOB, ["zoe", "alice"]),
        (ADMIN, ["zoe", "alice"]),
    ):
        agents = await storage.list_agents("session_1", caller, allow, limit=99)
        assert [agent.agent_id for agent in agents] == expected


async def test_known_agents_and_types_are_found_exactly(storage: Storage) -> None:
    await storage.touch_agents([seen("alice", 1, "claude"), seen("zoe\u200b", 2, "claude\u200b")])
    asked = ["alice", "zoe", "zoe\u200b", "Alice"]
    assert await storage.find_known_agents(asked) == {"alice", "zoe\u200b"}
    assert await storage.find_known_agents([]) == frozenset()
    assert await storage.is_agent_type_known("claude\u200b")
    assert not await storage.is_agent_type_known("claude\u200c")


# Presence


async def test_an_agent_joins_when_it_is_first_seen(storage: Storage) -> None:
    first = await storage.touch_agents([seen("a", 1), seen("b", 1)], gone_before=at(0))
    assert first == PresenceChange(joined=["a", "b"], left=[])
    again = await storage.touch_agents([seen("a", 2), seen("c", 2)], gone_before=at(0))
    assert again == PresenceChange(joined=["c"], left=[])


async def test_an_agent_that_goes_quiet_leaves_once_and_may_come_back(storage: Storage) -> None:
    await storage.touch_agents([seen("a", 1), seen("b", 9)], gone_before=at(0))
    assert await storage.touch_agents([], gone_before=at(1)) == PresenceChange([], [])
    assert await storage.touch_agents([], gone_before=at(5)) == PresenceChange([], ["a"])
    assert await storage.touch_agents([], gone_before=at(5)) == PresenceChange([], [])
    assert await storage.touch_agents([seen("a", 10)]) == PresenceChange(["a"], [])


async def test_who_went_unnoticed_and_is_back_has_left_and_joined(storage: Storage) -> None:
    await storage.touch_agents([seen("a", 1)], gone_before=at(0))
    back = await storage.touch_agents([seen("a", 99)], gone_before=at(50))
    assert back == PresenceChange(joined=["a"], left=["a"])


async def test_a_coming_and_a_going_are_told_to_one_of_many_callers(storage: Storage) -> None:
    coming = [storage.touch_agents([seen("a", 1)], gone_before=at(0)) for _ in range(8)]
    told = [change for change in await asyncio.gather(*coming) if change.joined]
    assert told == [PresenceChange(["a"], [])]
    going = [storage.touch_agents([], gone_before=at(5)) for _ in range(8)]
    told = [change for change in await asyncio.gather(*going) if change.left]
    assert told == [PresenceChange([], ["a"])]


# Audit


async def test_audit_entries_come_back_newest_first(storage: Storage) -> None:
    details: JsonObject = {"z": ["é", 1.5, None], "a": {}}
    first = AuditEntry("login", "alice", None, {}, at(1))
    second = AuditEntry("deleted", "bob", "session_1", details, at(0))
    await storage.add_audit(first)
    await storage.add_audit(second)
    entries = await storage.list_audit(AuditQuery(limit=10))
    assert [replace(entry, id=0) for entry in entries] == [second, first]
    assert list(entries[0].details) == ["z", "a"]
    assert entries[0].id > entries[1].id > 0


async def test_audit_is_filtered_and_paged(storage: Storage) -> None:
    for index in range(6):
        await storage.add_audit(
            AuditEntry(
                event_type=("login", "write")[index % 2],
                agent_id=("alice", "bob", "carol")[index % 3],
                session_id="s" if index < 4 else None,
                details={"index": index},
                timestamp=at(index),
            )
        )

    async def list_indexes(**filters: object) -> list[object]:
        query = AuditQuery(**{"limit": 10} | filters)  # type: ignore[arg-type]
        return [entry.details["index"] for entry in await storage.list_audit(query)]

    assert await list_indexes() == [5, 4, 3, 2, 1, 0]
    assert await list_indexes(limit=2) == [5, 4]
    assert await list_indexes(event_type="login") == [4, 2, 0]
    assert await list_indexes(agent_id="carol") == [5, 2]
    assert await list_indexes(session_id="s") == [3, 2, 1, 0]
    assert await list_indexes(session_id="s", event_type="write", agent_id="bob") == [1]
    assert await list_indexes(start_time=at(4)) == [5, 4]
    page = await storage.list_audit(AuditQuery(limit=2))
    assert await list_indexes(limit=3, before_id=page[-1].id) == [3, 2, 1]
    assert await list_indexes(before_id=0) == []
    assert await list_indexes(before_id=2**70, limit=1) == [5]


# Figures


async def test_stats_count_active_sessions_and_agents_seen_since(storage: Storage) -> None:
    for name in ("a", "b", "c", "d"):
        await add_session(storage, name)
    await storage.close_session("b", NOON, allow, make_audit())
    await storage.delete_session("c", allow, make_audit())
    await storage.touch_agents([seen("x", 1), seen("y", 2), seen("z", 3)])
    stats = await storage.get_stats(active_since=at(2))
    assert (stats.active_sessions, stats.active_agents) == (2, 2)


# Purging

LONG_AGO = at(-1000)


async def purge(
    storage: Storage,
    *,
    expired: datetime = LONG_AGO,
    idempotency: datetime = LONG_AGO,
    audit: datetime = LONG_AGO,
) -> int:
    return await storage.purge(
        expired_before=expired, idempotency_before=idempotency, audit_before=audit
    )


async def test_purging_removes_expired_memory_and_nothing_else(storage: Storage) -> None:
    for index in range(1100):  # more than two steps
        await storage.write_memory(
            address(f"{index:04}"), ALICE, put(1, expires_at=at(index)), now=at(-1), guard=None
        )
    await storage.write_memory(address("stays"), ALICE, put(1), now=NOON, guard=None)
    assert await purge(storage, expired=at(1049)) == 1050
    assert await purge(storage, expired=at(1049)) == 0
    page = await storage.list_memory(
        session_id=None,
        owner=None,
        prefix="",
        limit=100,
        after_key=None,
        now=at(-1),
        guard=None,
    )
    keys = [entry.address.key for entry in page.items]
    assert keys == [*(f"{index:04}" for index in range(1050, 1100)), "stays"]
    with pytest.raises(MemoryNotFound):
        await storage.get_memory(address("0000"), now=at(-1), guard=None)


async def test_purging_removes_expired_credentials(storage: Storage) -> None:
    for index in range(3):
        await storage.add_credential(
            Credential(
                id=f"jti_{index}",
                agent_id="alice",
                agent_type="claude",
                permissions=frozenset({Permission.READ}),
                key_id="key",
                handle_hash=f"hash_{index}",
                issued_at=NOON,
                expires_at=at(index),
            ),
            make_audit(),
        )
    assert await purge(storage, expired=at(0)) == 1
    found = [await storage.find_credential(f"jti_{index}") for index in range(3)]
    assert [credential is not None for credential in found] == [False, True, True]


async def test_purging_forgets_old_idempotency_keys(storage: Storage) -> None:
    await add_session(storage)
    for index in range(3):
        await add_message(storage, idempotency_key=f"k{index}", created_at=at(index))
    assert await purge(storage, idempotency=at(1)) == 1
    repeated = [await add_message(storage, idempotency_key=f"k{index}") for index in range(3)]
    assert [added.duplicate for added in repeated] == [False, True, True]


async def test_purging_removes_old_audit_entries(storage: Storage) -> None:
    for index in range(3):
        await storage.add_audit(make_audit(str(index), timestamp=at(index)))
    assert await purge(storage, audit=at(2)) == 2
    entries = await storage.list_audit(AuditQuery(limit=10))
    assert [entry.event_type for entry in entries] == ["2"]


async def test_others_write_while_much_is_being_purged(storage: Storage) -> None:
    await add_session(storage)
    await asyncio.gather(*(storage.add_audit(make_audit(timestamp=NOON)) for _ in range(3000)))
    purging = asyncio.create_task(purge(storage, audit=at(1)))
    written = 0
    async with asyncio.timeout(30):
        while not purging.done():
            await add_message(storage)
            written += 1
    assert await purging == 3001
    assert written > 3
