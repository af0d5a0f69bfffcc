"""The contract of storage/contract: agents, audit, figures, and removing what is old."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from shared_context_server.errors import MemoryNotFound
from shared_context_server.models import (
    Access,
    Agent,
    AgentState,
    AuditEntry,
    Caller,
    Credential,
    Instance,
    InstanceSeen,
    JsonObject,
    Permission,
    Visibility,
    Waiting,
)
from shared_context_server.storage import Store
from shared_context_server.storage.contract import (
    MAX_HELD,
    MAX_INSTANCES,
    AuditQuery,
    PresenceChange,
)
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
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


async def test_agents_are_listed_by_when_they_were_last_seen(store: Store) -> None:
    await store.agents.touch([])
    assert await store.agents.list_seen(None, ALICE, None, limit=99) == []
    await store.agents.touch([seen("a", 1), seen("c", 3), seen("b", 3), seen("d", 2)])
    agents = await store.agents.list_seen(None, ALICE, None, limit=99)
    assert agents == [seen("c", 3), seen("b", 3), seen("d", 2), seen("a", 1)]


async def test_touching_moves_last_seen_forward_only(store: Store) -> None:
    await store.agents.touch([seen("a", 5, "claude")])
    await store.agents.touch([seen("a", 9, "gpt")])
    latest = Agent("a", "gpt", first_seen=at(5), last_seen=at(9))
    assert await store.agents.list_seen(None, ALICE, None, limit=99) == [latest]
    await store.agents.touch([seen("a", 7, "late")])
    assert await store.agents.list_seen(None, ALICE, None, limit=99) == [latest]


async def test_agents_of_a_session_are_its_known_participants(store: Store) -> None:
    await store.agents.touch([seen("alice", 1), seen("bob", 2), seen("zoe", 3), seen("x", 4)])
    await add_session(store, invited=("bob", "never_seen"))
    await add_message(store, sender=make_caller("zoe"))
    agents = await store.agents.list_seen("session_1", ALICE, allow, limit=99)
    assert [agent.agent_id for agent in agents] == ["zoe", "bob", "alice"]
    with pytest.raises(Refusal):
        await store.agents.list_seen("session_1", ALICE, refuse, limit=99)


async def test_agents_of_a_session_are_those_whose_messages_the_caller_sees(
    store: Store,
) -> None:
    await store.agents.touch([seen("alice", 1), seen("bob", 2), seen("zoe", 3)])
    await add_session(store)
    await add_message(
        store, sender=make_caller("zoe"), visibility=Visibility.PRIVATE, recipients=("bob",)
    )
    for caller, expected in (
        (ALICE, ["alice"]),
        (BOB, ["zoe", "alice"]),
        (ADMIN, ["zoe", "alice"]),
    ):
        agents = await store.agents.list_seen("session_1", caller, allow, limit=99)
        assert [agent.agent_id for agent in agents] == expected


async def test_known_agents_and_types_are_found_exactly(store: Store) -> None:
    await store.agents.touch([seen("alice", 1, "claude"), seen("zoe\u200b", 2, "claude\u200b")])
    asked = ["alice", "zoe", "zoe\u200b", "Alice"]
    assert await store.agents.find_known(asked) == {"alice", "zoe\u200b"}
    assert await store.agents.find_known([]) == frozenset()
    assert await store.agents.is_type_known("claude\u200b")
    assert not await store.agents.is_type_known("claude\u200c")


# Presence


async def test_an_agent_joins_when_it_is_first_seen(store: Store) -> None:
    first = await store.agents.touch([seen("a", 1), seen("b", 1)], gone_before=at(0))
    assert first == PresenceChange(joined=["a", "b"], left=[])
    again = await store.agents.touch([seen("a", 2), seen("c", 2)], gone_before=at(0))
    assert again == PresenceChange(joined=["c"], left=[])


async def test_an_agent_that_goes_quiet_leaves_once_and_may_come_back(store: Store) -> None:
    await store.agents.touch([seen("a", 1), seen("b", 9)], gone_before=at(0))
    assert await store.agents.touch([], gone_before=at(1)) == PresenceChange([], [])
    assert await store.agents.touch([], gone_before=at(5)) == PresenceChange([], ["a"])
    assert await store.agents.touch([], gone_before=at(5)) == PresenceChange([], [])
    assert await store.agents.touch([seen("a", 10)]) == PresenceChange(["a"], [])


async def test_who_went_unnoticed_and_is_back_has_left_and_joined(store: Store) -> None:
    await store.agents.touch([seen("a", 1)], gone_before=at(0))
    back = await store.agents.touch([seen("a", 99)], gone_before=at(50))
    assert back == PresenceChange(joined=["a"], left=["a"])


async def test_a_coming_and_a_going_are_told_to_one_of_many_callers(store: Store) -> None:
    coming = [store.agents.touch([seen("a", 1)], gone_before=at(0)) for _ in range(8)]
    told = [change for change in await asyncio.gather(*coming) if change.joined]
    assert told == [PresenceChange(["a"], [])]
    going = [store.agents.touch([], gone_before=at(5)) for _ in range(8)]
    told = [change for change in await asyncio.gather(*going) if change.left]
    assert told == [PresenceChange([], ["a"])]


# Audit


async def test_audit_entries_come_back_newest_first(store: Store) -> None:
    details: JsonObject = {"z": ["é", 1.5, None], "a": {}}
    first = AuditEntry("login", "alice", None, {}, at(1))
    second = AuditEntry("deleted", "bob", "session_1", details, at(0))
    await store.audit.add(first)
    await store.audit.add(second)
    entries = await store.audit.list_newest(AuditQuery(limit=10))
    assert [replace(entry, id=0, hash="") for entry in entries] == [second, first]
    assert list(entries[0].details) == ["z", "a"]
    assert entries[0].id > entries[1].id > 0


async def test_audit_is_filtered_and_paged(store: Store) -> None:
    for index in range(6):
        await store.audit.add(
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
        return [entry.details["index"] for entry in await store.audit.list_newest(query)]

    assert await list_indexes() == [5, 4, 3, 2, 1, 0]
    assert await list_indexes(limit=2) == [5, 4]
    assert await list_indexes(event_type="login") == [4, 2, 0]
    assert await list_indexes(agent_id="carol") == [5, 2]
    assert await list_indexes(session_id="s") == [3, 2, 1, 0]
    assert await list_indexes(session_id="s", event_type="write", agent_id="bob") == [1]
    assert await list_indexes(start_time=at(4)) == [5, 4]
    page = await store.audit.list_newest(AuditQuery(limit=2))
    assert await list_indexes(limit=3, before_id=page[-1].id) == [3, 2, 1]
    assert await list_indexes(before_id=0) == []
    assert await list_indexes(before_id=2**70, limit=1) == [5]


# Figures


async def test_stats_count_active_sessions_and_agents_seen_since(store: Store) -> None:
    for name in ("a", "b", "c", "d"):
        await add_session(store, name)
    await store.sessions.close("b", NOON, allow, make_audit())
    await store.sessions.delete("c", allow, make_audit())
    await store.agents.touch([seen("x", 1), seen("y", 2), seen("z", 3)])
    stats = await store.maintenance.get_stats(active_since=at(2))
    assert (stats.active_sessions, stats.active_agents) == (2, 2)


# Purging

LONG_AGO = at(-1000)


async def purge(
    store: Store,
    *,
    expired: datetime = LONG_AGO,
    idempotency: datetime = LONG_AGO,
    audit: datetime = LONG_AGO,
) -> int:
    return await store.maintenance.purge(
        expired_before=expired, idempotency_before=idempotency, audit_before=audit
    )


async def test_purging_removes_expired_memory_and_nothing_else(store: Store) -> None:
    for index in range(1100):  # more than two steps
        await store.memory.write(
            address(f"{index:04}"), ALICE, put(1, expires_at=at(index)), now=at(-1), guard=None
        )
    await store.memory.write(address("stays"), ALICE, put(1), now=NOON, guard=None)
    assert await purge(store, expired=at(1049)) == 1050
    assert await purge(store, expired=at(1049)) == 0
    page = await store.memory.list_entries(
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
        await store.memory.get(address("0000"), now=at(-1), guard=None)


async def test_purging_removes_expired_credentials(store: Store) -> None:
    for index in range(3):
        await store.credentials.add(
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
    assert await purge(store, expired=at(0)) == 1
    found = [await store.credentials.find(f"jti_{index}") for index in range(3)]
    assert [credential is not None for credential in found] == [False, True, True]


async def test_purging_forgets_old_idempotency_keys(store: Store) -> None:
    await add_session(store)
    for index in range(3):
        await add_message(store, idempotency_key=f"k{index}", created_at=at(index))
    assert await purge(store, idempotency=at(1)) == 1
    repeated = [await add_message(store, idempotency_key=f"k{index}") for index in range(3)]
    assert [added.duplicate for added in repeated] == [False, True, True]


async def test_purging_removes_old_audit_entries(store: Store) -> None:
    for index in range(3):
        await store.audit.add(make_audit(str(index), timestamp=at(index)))
    assert await purge(store, audit=at(2)) == 2
    entries = await store.audit.list_newest(AuditQuery(limit=10))
    assert [entry.event_type for entry in entries] == ["2"]


async def test_others_write_while_much_is_being_purged(store: Store) -> None:
    await add_session(store)
    await asyncio.gather(*(store.audit.add(make_audit(timestamp=NOON)) for _ in range(3000)))
    purging = asyncio.create_task(purge(store, audit=at(1)))
    written = 0
    async with asyncio.timeout(30):
        while not purging.done():
            await add_message(store)
            written += 1
    assert await purging == 3001
    assert written > 3


# Instances


def instance_seen(name: str, seconds: float, action: str = "get_time") -> InstanceSeen:
    return InstanceSeen("alice", name, at(seconds), action, None)


async def test_an_instance_keeps_its_status_and_its_last_action(store: Store) -> None:
    first = replace(ALICE, instance="one")
    waits_for = Waiting("messages", "session_1")
    await store.agents.note_instances(
        [instance_seen("one", 1)._replace(waits_for=waits_for), instance_seen("", 2)],
        forget_before=at(0),
    )
    since = await store.agents.set_status(first, status="x", state=AgentState.IDLE, now=at(3))
    again = await store.agents.set_status(first, status="x", state=AgentState.IDLE, now=at(4))
    assert (since, again) == (at(3), at(3))
    await store.agents.note_instances([instance_seen("one", 2, "late")], forget_before=at(0))
    await store.agents.note_instances([instance_seen("one", 5, "")], forget_before=at(0))
    one = Instance("alice", "one", at(5), "set_status", AgentState.IDLE, "x", at(3), None)
    other = Instance("alice", "", at(2), "get_time", None, "", None, None)
    assert await store.agents.list_instances(["alice", "bob"], ADMIN) == [one, other]
    assert await store.agents.set_status(first, status="", state=None, now=at(6)) is None
    assert (await store.agents.list_instances(["alice"], ADMIN))[0].since is None
    # The call that sets a status is noted with the same time. It tells that a wait has ended.
    everywhere = instance_seen("one", 7)._replace(waits_for=Waiting("lease", None, "x"))
    await store.agents.note_instances([everywhere], forget_before=at(0))
    await store.agents.set_status(first, status="x", state=None, now=at(8))
    await store.agents.note_instances([instance_seen("one", 8)], forget_before=at(0))
    assert (await store.agents.list_instances(["alice"], ADMIN))[0].waits_for is None


async def test_what_an_instance_waits_for_is_told_to_those_who_see_the_session(
    store: Store,
) -> None:
    await add_session(store, "invited", access=Access.INVITED, invited=("bob",))
    waits = [Waiting("messages", "invited"), Waiting("lease", None, "deploy")]
    for number, waits_for in enumerate([*waits, Waiting("messages", "deleted")]):
        seen = instance_seen(str(number), -number)
        seen = seen._replace(waits_for=waits_for, waits_since=at(-9))
        await store.agents.note_instances([seen], forget_before=at(-9))
    for caller, first in ((ALICE, waits[0]), (BOB, waits[0]), (ADMIN, waits[0]), (CAROL, None)):
        found = await store.agents.list_instances(["alice"], caller)
        assert [one.waits_for for one in found] == [first, waits[1], None]
        since = [None if one is None else at(-9) for one in (first, waits[1], None)]
        assert [one.waits_since for one in found] == since


async def test_old_and_surplus_instances_are_forgotten(store: Store) -> None:
    many = [instance_seen(f"{number:03}", number) for number in range(MAX_INSTANCES + 5)]
    await store.agents.note_instances(many, forget_before=at(0))
    kept = await store.agents.list_instances(["alice"], ALICE)
    assert [one.instance for one in kept] == [one.instance for one in many[:4:-1]]
    await store.agents.note_instances([instance_seen("x", 99)], forget_before=at(99))
    assert [one.instance for one in await store.agents.list_instances(["alice"], ALICE)] == ["x"]


async def test_leases_of_holders_are_listed_as_far_as_the_caller_sees_their_session(
    store: Store,
) -> None:
    await add_session(store, "invited", access=Access.INVITED, invited=("bob",))
    for session_id, name, holder in [
        ("invited", "b", BOB),
        (None, "a", BOB),
        (None, "ended", BOB),
        *((None, f"c{number:02}", CAROL) for number in range(MAX_HELD + 1)),
    ]:
        ttl = timedelta(seconds=1 if name == "ended" else 10)
        guard = None if session_id is None else allow
        await store.leases.acquire(session_id, name, holder, ttl=ttl, now=NOON, guard=guard)

    async def list_names(caller: Caller, *holders: str) -> list[str]:
        found = await store.leases.list_of_holders(holders, caller, now=at(5))
        return [lease.name for lease in found]

    assert await list_names(ALICE, "bob", "alice") == ["a", "b"]
    assert await list_names(CAROL, "bob") == ["a"]
    assert await list_names(ALICE, "carol") == [f"c{number:02}" for number in range(MAX_HELD)]
