"""The contract of storage/contract: the overview of all agents."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared_context_server.errors import TaskNotFound
from shared_context_server.models import (
    Access,
    Activity,
    Agent,
    AgentState,
    Credential,
    InstanceSeen,
    Permission,
    Visibility,
    Waiting,
)
from shared_context_server.storage import Store
from shared_context_server.storage.contract import (
    Claim,
    KeyUse,
    NewTask,
    SessionContents,
    Survey,
    SurveyedInstance,
    SurveyQuery,
    UnreadIn,
)
from shared_context_server.storage.contract.agents import MAX_PAUSE
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
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

HOUR = 3600.0
NOW = 10 * HOUR
MINUTE = 60.0


async def note(
    store: Store,
    agent_id: str,
    seconds: float,
    *,
    instance: str = "",
    waits_for: Waiting | None = None,
    session_id: str | None = None,
    waits_since: float | None = None,
) -> None:
    """A call of an agent so long after noon."""
    await store.agents.touch([Agent(agent_id, "claude", at(seconds), at(seconds))])
    since = None if waits_since is None else at(waits_since)
    seen = InstanceSeen(agent_id, instance, at(seconds), "get_time", waits_for, since, session_id)
    await store.agents.note_instances([seen], forget_before=at(0))


async def survey(store: Store, caller: Any = ALICE, **fields: Any) -> Survey:
    query = SurveyQuery(
        now=at(NOW),
        waits_after=at(NOW - MINUTE),
        away_before=at(NOW - HOUR),
        silent_factor=4,
        silent_min=timedelta(minutes=5),
        silent_max=timedelta(minutes=30),
        limit=50,
    )
    return await store.fleet.survey(caller, replace(query, **fields))


def names(found: Survey) -> list[tuple[str, str]]:
    return [(one.agent_id, one.activity.value) for one in found.agents]


def only(found: Survey) -> SurveyedInstance:
    (agent,) = found.agents
    (one,) = agent.instances
    return one


async def hold(store: Store, name: str, holder: Any, session_id: str | None = None) -> None:
    attempt = await store.leases.acquire(
        session_id,
        name,
        holder,
        ttl=timedelta(seconds=30),
        now=at(NOW - 1),
        guard=allow if session_id else None,
    )
    assert attempt.is_acquired


async def test_agents_are_listed_by_what_they_do_and_counted(store: Store) -> None:
    await add_session(store)
    await hold(store, "deploy", BOB)
    await note(store, "bob", NOW - 2)
    await note(store, "stuck", NOW - 3, waits_for=Waiting("lease", None, "deploy"), waits_since=9)
    await note(store, "reader", NOW - 4, waits_for=Waiting("messages", "session_1"))
    await note(store, "ended", NOW - 90, waits_for=Waiting("messages", "session_1"))
    await note(store, "quiet", NOW - 6 * MINUTE)
    await note(store, "gone", NOW - 2 * HOUR)
    for agent_id, state in [("done", AgentState.DONE), ("asks", AgentState.BLOCKED)]:
        caller = make_caller(agent_id)
        await store.agents.set_status(caller, status="Key?", state=state, now=at(NOW - 20 * MINUTE))
    found = await survey(store)
    assert names(found) == [
        ("stuck", "blocked"),
        ("asks", "blocked"),
        ("quiet", "silent"),
        ("reader", "waiting"),
        ("bob", "working"),
        ("ended", "working"),
        ("done", "idle"),
        ("gone", "away"),
    ]
    assert {activity.value: count for activity, count in found.counts.items()} == {
        "blocked": 2,
        "silent": 1,
        "waiting": 1,
        "working": 2,
        "idle": 1,
        "away": 1,
    }
    assert (found.is_complete, found.has_more) == (True, False)
    (stuck,) = found.blocks
    assert stuck == found.agents[0].instances[0]
    assert stuck.instance.waits_since == at(9)
    lease = stuck.blocked_by
    assert lease is not None
    assert (lease.name, lease.holder, lease.expires_at) == ("deploy", "bob", at(NOW + 29))


async def test_pages_and_filters_keep_the_counts_of_all(store: Store) -> None:
    for number in range(5):
        await note(store, f"agent {number}", NOW - number)
    await store.agents.set_status(
        make_caller("agent 3"), status="100% of it", state=None, now=at(NOW - 3)
    )
    first = await survey(store, limit=2)
    second = await survey(store, limit=2, offset=2)
    last = await survey(store, limit=2, offset=4)
    listed = [one.agent_id for page in (first, second, last) for one in page.agents]
    assert listed == [f"agent {number}" for number in range(5)]
    assert [page.has_more for page in (first, second, last)] == [True, True, False]
    assert names(await survey(store, contains="0% o")) == [("agent 3", "working")]
    assert names(await survey(store, contains="gent 1")) == [("agent 1", "working")]
    assert names(await survey(store, contains="%")) == [("agent 3", "working")]
    filtered = await survey(store, activity=Activity.SILENT)
    assert filtered.agents == []
    assert filtered.counts[Activity.WORKING] == 5


async def test_the_most_active_instance_counts_for_its_agent(store: Store) -> None:
    await note(store, "alice", NOW - 1, instance="new")
    await note(store, "alice", NOW - 10 * MINUTE, instance="old")
    (agent,) = (await survey(store)).agents
    assert agent.activity is Activity.WORKING
    found = [(one.instance.instance, one.activity) for one in agent.instances]
    assert found == [("new", Activity.WORKING), ("old", Activity.SILENT)]
    await hold(store, "deploy", replace(ALICE, instance="new"))
    waits_for = Waiting("lease", None, "deploy")
    await note(store, "alice", NOW - 2, instance="old", waits_for=waits_for)
    (agent,) = (await survey(store)).agents
    assert agent.activity is Activity.BLOCKED
    await note(store, "alice", NOW - 1, instance="old")
    await note(store, "alice", NOW, instance="new", waits_for=waits_for)
    (agent,) = (await survey(store)).agents
    assert agent.activity is Activity.WORKING  # nobody waits for what it holds itself


async def test_silence_is_measured_by_the_usual_pause_within_bounds(store: Store) -> None:
    for agent_id, pause, last in [
        ("often", 10.0, NOW - 4 * MINUTE),
        ("seldom", 8 * MINUTE, NOW - 25 * MINUTE),
        ("rarely", 20 * MINUTE, NOW - 31 * MINUTE),
    ]:
        for number in range(20, -1, -1):
            await note(store, agent_id, last - number * pause)
    assert names(await survey(store)) == [
        ("rarely", "silent"),
        ("often", "working"),
        ("seldom", "working"),
    ]
    later = await survey(store, now=at(NOW + 1.5 * MINUTE), away_before=at(0))
    assert names(later)[0] == ("often", "silent")
    assert timedelta(minutes=20) > MAX_PAUSE  # so one of them counts for less than it lasted


async def test_a_wait_begins_when_the_instance_began_to_wait_for_this(store: Store) -> None:
    await add_session(store)
    one, other = Waiting("messages", "session_1"), Waiting("task", "session_1")
    begun = []
    for seconds, waits_for in [(-30, one), (-20, one), (-10, other), (-5, None), (-1, one)]:
        await note(store, "alice", NOW + seconds, waits_for=waits_for, waits_since=seconds)
        begun.append(only(await survey(store)).instance.waits_since)
    assert begun == [at(-30), at(-30), at(-10), None, at(-1)]


async def test_the_session_of_a_call_is_kept_beside_a_status_that_was_set_later(
    store: Store,
) -> None:
    await add_session(store)
    await store.agents.set_status(ALICE, status="x", state=None, now=at(NOW))
    await note(store, "alice", NOW - 1, session_id="session_1")
    one = only(await survey(store))
    assert (one.session_id, one.instance.last_action) == ("session_1", "set_status")


async def test_what_happens_in_a_session_is_told_to_those_who_see_it(store: Store) -> None:
    await add_session(store, "invited", access=Access.INVITED, invited=("bob",))
    await hold(store, "deploy", BOB, "invited")
    waits_for = Waiting("lease", "invited", "deploy")
    await note(store, "alice", NOW - 1, waits_for=waits_for, session_id="invited", waits_since=0)
    await note(store, "alice", NOW, waits_for=waits_for)
    for caller in (ALICE, BOB, ADMIN):
        found = await survey(store, caller)
        one = only(found)
        assert (one.session_id, one.purpose, one.activity) == ("invited", "To test.", "blocked")
        assert one.blocked_by is not None
        assert one.blocked_by.session_id == "invited"
        assert found.blocks == [one]
    hidden = await survey(store, CAROL)
    one = only(hidden)
    assert (one.session_id, one.purpose, one.blocked_by) == (None, None, None)
    shown = one.instance
    assert (one.activity, shown.waits_for, shown.waits_since) == ("working", None, None)
    assert (hidden.blocks, hidden.counts[Activity.BLOCKED]) == ([], 0)


async def test_who_waits_for_a_task_is_blocked_by_the_claim_that_holds_it_up(store: Store) -> None:
    await add_session(store)
    for title, depends_on in [("First", ()), ("Second", (1,))]:
        new = NewTask("session_1", ALICE, title, "", 0, None, depends_on, {}, at(0))
        await store.tasks.add(new, allow)
    for agent_id, wanted in [("x", "task:1"), ("y", "task:2"), ("z", None)]:
        await note(store, agent_id, NOW, waits_for=Waiting("task", "session_1", wanted))
    assert [activity for _, activity in names(await survey(store))] == ["waiting"] * 3
    await store.tasks.claim(Claim("session_1", 1, BOB, timedelta(hours=1), at(NOW)), allow)
    found = await survey(store)
    assert names(found) == [("x", "blocked"), ("y", "blocked"), ("z", "waiting")]
    leases = [one.blocked_by for one in found.blocks]
    assert [(one.name, one.holder) for one in leases if one] == [("task:1", "bob")] * 2
    titles = await store.fleet.list_task_titles([("session_1", 2), ("session_1", 9), ("", 1)])
    assert titles == {("session_1", 2): "Second"}
    assert await store.fleet.list_task_titles([]) == {}


async def test_unread_messages_are_those_of_others_behind_the_cursor(store: Store) -> None:
    await add_session(store)
    for sender in (ALICE, BOB, ALICE, BOB, BOB):
        await add_message(store, sender=sender)
    await add_message(store, sender=BOB, visibility=Visibility.PRIVATE, recipients=("alice",))
    await add_message(store, sender=ALICE, visibility=Visibility.PRIVATE, recipients=("bob",))
    everything = UnreadIn("session_1", "alice", ("*", "agent:alice"))
    assert await store.fleet.count_unread([everything]) == {}
    await store.sessions.set_cursor("session_1", ALICE, 2, allow)
    assert await store.fleet.count_unread([everything]) == {("session_1", "alice"): 3}
    public = UnreadIn("session_1", "alice", ("*",))
    other = UnreadIn("session_1", "bob", ("*",))
    assert await store.fleet.count_unread([public, other]) == {("session_1", "alice"): 2}


async def test_held_leases_of_all_sessions_are_listed_by_their_end(store: Store) -> None:
    await add_session(store, "invited", access=Access.INVITED, invited=("bob",))
    await add_session(store, "open")
    for session_id, name, holder, ttl in [
        (None, "b", ALICE, 30),
        ("open", "a", BOB, 20),
        ("invited", "a", BOB, 10),
        ("open", "ended", BOB, 1),
        ("open", "later", BOB, 40),
    ]:
        guard = allow if session_id else None
        await store.leases.acquire(
            session_id, name, holder, ttl=timedelta(seconds=ttl), now=at(0), guard=guard
        )

    async def find(caller: Any, **fields: Any) -> list[tuple[str | None, str]]:
        found = await store.leases.list_visible(caller, **{"limit": 9, "now": at(1)} | fields)
        return [(lease.session_id, lease.name) for lease in found]

    everything = [("invited", "a"), ("open", "a"), (None, "b"), ("open", "later")]
    assert await find(ADMIN) == await find(BOB) == everything
    assert await find(CAROL) == everything[1:]
    assert await find(ADMIN, limit=2) == everything[:2]
    assert await find(ADMIN, after=(at(20), "open", "a")) == everything[2:]


async def test_a_session_is_measured_as_it_would_be_deleted(store: Store) -> None:
    await add_session(store)
    with pytest.raises(Refusal):
        await store.sessions.measure("session_1", refuse, now=at(0))
    for number in range(3):
        await add_message(store, sender=(ALICE, BOB)[number % 2])
    for key, owner, until in [("a", None, None), ("b", "alice", at(9)), ("c", None, at(0))]:
        place = address(key, session_id="session_1", owner=owner)
        await store.memory.write(place, ALICE, put(1, expires_at=until), now=at(0), guard=allow)
    await store.tasks.add(NewTask("session_1", ALICE, "t", "", 0, None, (), {}, at(0)), allow)
    await store.leases.acquire(
        "session_1", "deploy", BOB, ttl=timedelta(seconds=9), now=at(0), guard=allow
    )
    await store.sessions.set_cursor("session_1", BOB, 2, allow)
    found = await store.sessions.measure("session_1", allow, now=at(1))
    assert found == SessionContents(messages=4, memory_entries=2, tasks=1, leases_held=1, cursors=1)
    assert (await store.sessions.measure("session_1", allow, now=at(9))).leases_held == 0


async def test_a_task_has_its_neighbours_beside_it(store: Store) -> None:
    await add_session(store)
    for depends_on in [(), (), (1, 2), (3,)]:
        new = NewTask("session_1", ALICE, f"After {depends_on}", "", 0, None, depends_on, {}, at(0))
        await store.tasks.add(new, allow)
    await store.tasks.claim(Claim("session_1", 2, BOB, timedelta(seconds=9), at(0)), allow)
    found = await store.tasks.get_detail("session_1", 3, now=at(1), guard=allow)
    assert found.task.id == 3
    assert [(one.id, one.state, one.claimed_by, one.expires_at) for one in found.depends_on] == [
        (1, "ready", None, None),
        (2, "claimed", "bob", at(9)),
    ]
    assert [(one.id, one.title) for one in found.dependents] == [(4, "After (3,)")]
    later = await store.tasks.get_detail("session_1", 3, now=at(9), guard=allow)
    assert later.depends_on[1].claimed_by is None
    with pytest.raises(TaskNotFound):
        await store.tasks.get_detail("session_1", 9, now=at(0), guard=allow)
    with pytest.raises(Refusal):
        await store.tasks.get_detail("session_1", 3, now=at(0), guard=refuse)


async def test_a_key_is_used_by_the_tokens_that_are_valid(store: Store) -> None:
    permissions = frozenset({Permission.READ})
    for number, (agent_id, key_id, expires) in enumerate(
        [("a", "k1", 9), ("b", "k1", 9), ("b", "k1", 99), ("c", "k1", 1), ("d", "k2", 9)]
    ):
        token = Credential(
            str(number), agent_id, "x", permissions, key_id, str(number), at(number), at(expires)
        )
        await store.credentials.add(token, make_audit())
    await store.credentials.revoke_family("4", at(5), make_audit())
    used = await store.credentials.measure_keys(now=at(5))
    assert used == {"k1": KeyUse(tokens=3, agents=2, last_issued_at=at(2))}
