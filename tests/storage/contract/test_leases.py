"""The contract of storage/contract: leases, and writes that require one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_context_server.errors import (
    Conflict,
    LeaseLost,
    MemoryNotFound,
    MessageNotFound,
    SessionClosed,
    SessionNotFound,
)
from shared_context_server.models import Caller, Lease
from shared_context_server.storage import Store
from shared_context_server.storage.contract import Fence, LeaseAttempt
from shared_context_server.storage.rules.leases import MAX_PATH_CHARS, MAX_PATH_LEASES
from tests.storage.builders import (
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
    writer_guard,
)
from tests.storage.conftest import BlockingStore


async def acquire(
    store: Store,
    caller: Caller = ALICE,
    name: str = "deploy",
    *,
    session_id: str | None = None,
    seconds: float = 0,
    ttl_s: float = 10,
    paths: tuple[str, ...] | None = None,
) -> LeaseAttempt:
    return await store.leases.acquire(
        session_id,
        name,
        caller,
        ttl=timedelta(seconds=ttl_s),
        now=at(seconds),
        guard=allow if session_id else None,
        paths=paths,
    )


async def release(
    store: Store,
    fencing_token: int,
    caller: Caller = ALICE,
    name: str = "deploy",
    *,
    session_id: str | None = None,
    seconds: float = 0,
    expires_at: datetime | None = None,
) -> bool:
    return await store.leases.release(
        session_id,
        name,
        caller,
        fencing_token,
        now=at(seconds),
        guard=allow if session_id else None,
        expires_at=expires_at,
    )


async def held(store: Store, *, session_id: str | None = None, seconds: float = 0) -> list[Lease]:
    return await store.leases.list_held(
        session_id, limit=100, now=at(seconds), guard=allow if session_id else None
    )


# Holding


async def test_a_free_lease_is_taken_and_another_is_told_who_has_it(store: Store) -> None:
    mine = Lease(None, "deploy", "alice", 1, at(0), at(10))
    assert await acquire(store) == LeaseAttempt(mine, is_acquired=True)
    assert await acquire(store, BOB, seconds=5) == LeaseAttempt(mine, is_acquired=False)
    assert await held(store, seconds=5) == [mine]


async def test_another_instance_of_the_holder_does_not_renew_it_but_may_end_it(
    store: Store,
) -> None:
    first, second = replace(ALICE, instance="one"), replace(ALICE, instance="two")
    mine = Lease(None, "deploy", "alice", 1, at(0), at(10), "one")
    assert await acquire(store, first) == LeaseAttempt(mine, is_acquired=True)
    for other in (second, ALICE):
        assert await acquire(store, other, seconds=5) == LeaseAttempt(mine, is_acquired=False)
    assert (await acquire(store, first, seconds=5)).is_renewal
    assert await held(store, seconds=5) == [replace(mine, expires_at=at(15))]
    assert await release(store, 1, ALICE, seconds=6)
    taken = await acquire(store, second, seconds=7)
    assert (taken.lease.instance, taken.lease.fencing_token) == ("two", 2)
    assert (await acquire(store, ALICE, seconds=20)).lease.instance == ""


async def test_its_holder_renews_with_the_same_token(store: Store) -> None:
    await acquire(store)
    longer = Lease(None, "deploy", "alice", 1, at(0), at(25))
    renewed = await acquire(store, seconds=5, ttl_s=20)
    assert renewed == LeaseAttempt(longer, is_acquired=True, is_renewal=True)
    shorter = await acquire(store, seconds=6, ttl_s=1)
    assert shorter.lease.expires_at == at(7)
    assert (await acquire(store, BOB, seconds=7)).lease.fencing_token == 2


@pytest.mark.parametrize("caller", [ALICE, BOB])
async def test_it_is_free_from_its_expiry_on_and_the_token_grows(
    store: Store, caller: Caller
) -> None:
    await acquire(store)
    assert not (await acquire(store, CAROL, seconds=9.999_999)).is_acquired
    assert await held(store, seconds=10) == []
    again = await acquire(store, caller, seconds=10)
    expected = Lease(None, "deploy", caller.agent_id, 2, at(10), at(20))
    assert again == LeaseAttempt(expected, is_acquired=True)


async def test_a_released_lease_is_free_at_once_and_the_token_grows(store: Store) -> None:
    await acquire(store)
    assert await release(store, 1, seconds=1)
    assert await held(store, seconds=1) == []
    # Also for a caller whose clock was read before the release.
    assert (await acquire(store, BOB, seconds=0.5)).lease.fencing_token == 2


async def test_only_the_holder_releases_and_only_with_its_token(store: Store) -> None:
    await acquire(store)
    assert not await release(store, 1, BOB)
    assert not await release(store, 2)
    assert not await release(store, 1, name="other")
    assert not await release(store, 1, seconds=10)  # it has expired
    assert len(await held(store)) == 1
    assert await release(store, 1)
    assert not await release(store, 1)


async def test_a_release_for_an_expiry_spares_a_lease_renewed_since(store: Store) -> None:
    first = await acquire(store)
    second = await acquire(store, seconds=1)
    assert not await release(store, 1, seconds=2, expires_at=first.lease.expires_at)
    assert await release(store, 1, seconds=2, expires_at=second.lease.expires_at)


async def test_places_and_names_are_apart(store: Store) -> None:
    await add_session(store)
    await add_session(store, "session_2")
    for place in (None, "session_1", "session_2"):
        for name in ("b", "a", "é", "B", "a\x01"):
            attempt = await acquire(store, name=name, session_id=place)
            assert (attempt.is_acquired, attempt.lease.fencing_token) == (True, 1)
            assert attempt.lease.session_id == place
        leases = await held(store, session_id=place)
        assert [lease.name for lease in leases] == ["B", "a", "a\x01", "b", "é"]
        assert {lease.session_id for lease in leases} == {place}
    first = await store.leases.list_held(None, limit=2, now=NOON, guard=None)
    assert [lease.name for lease in first] == ["B", "a"]


async def test_of_many_who_try_at_once_one_gets_it(store: Store) -> None:
    callers = [make_caller(f"agent-{number}") for number in range(30)]
    attempts = await asyncio.gather(*(acquire(store, caller) for caller in callers))
    (winner,) = (attempt.lease for attempt in attempts if attempt.is_acquired)
    assert {attempt.lease for attempt in attempts} == {winner}


# Sessions


async def test_the_guard_decides_and_an_unknown_session_is_not_found(store: Store) -> None:
    await add_session(store)
    ttl = timedelta(seconds=1)
    for guard, session_id, error in (
        (refuse, "session_1", Refusal),
        (refuse, "session_9", SessionNotFound),
    ):
        with pytest.raises(error):
            await store.leases.acquire(session_id, "a", ALICE, ttl=ttl, now=NOON, guard=guard)
        with pytest.raises(error):
            await store.leases.release(session_id, "a", ALICE, 1, now=NOON, guard=guard)
        with pytest.raises(error):
            await store.leases.list_held(session_id, limit=1, now=NOON, guard=guard)
    assert await held(store, session_id="session_1") == []


async def test_a_deleted_session_takes_its_leases_with_it(store: Store) -> None:
    await add_session(store)
    await acquire(store, session_id="session_1")
    await acquire(store)
    await store.sessions.delete("session_1", allow, make_audit())
    with pytest.raises(SessionNotFound):
        await held(store, session_id="session_1")
    await add_session(store)
    assert await held(store, session_id="session_1") == []
    assert (await acquire(store, session_id="session_1")).lease.fencing_token == 1
    assert len(await held(store)) == 1


async def test_purging_keeps_the_tokens(store: Store) -> None:
    await acquire(store)
    await store.maintenance.purge(
        expired_before=at(10**6), idempotency_before=at(10**6), audit_before=at(10**6)
    )
    assert (await acquire(store, BOB, seconds=10**6)).lease.fencing_token == 2


# Fences


async def write(
    store: Store,
    fence: Fence | None,
    caller: Caller = ALICE,
    *,
    session_id: str | None = None,
    seconds: float = 0,
    **arguments: Any,
) -> None:
    place = address("k", session_id=session_id)
    guard = allow if session_id else None
    await store.memory.write(
        place, caller, put(1), now=at(seconds), guard=guard, fence=fence, **arguments
    )


@pytest.mark.parametrize("session_id", [None, "session_1"])
async def test_a_fenced_write_needs_exactly_this_holding(
    store: Store, session_id: str | None
) -> None:
    await add_session(store)
    await acquire(store, BOB, session_id=session_id)
    await release(store, 1, BOB, session_id=session_id)
    await acquire(store, session_id=session_id)
    elsewhere = None if session_id else "session_1"
    await acquire(store, name="elsewhere", session_id=elsewhere)
    mine = Fence("deploy", 2)
    await write(store, mine, session_id=session_id)
    for fence, caller, seconds, holder, token in (
        (Fence("deploy", 1), ALICE, 0, "alice", 2),
        (Fence("deploy", 3), ALICE, 0, "alice", 2),
        (mine, BOB, 0, "alice", 2),
        (mine, ALICE, 10, None, None),
        (Fence("never", 1), ALICE, 0, None, None),
        (Fence("elsewhere", 1), ALICE, 0, None, None),
    ):
        with pytest.raises(LeaseLost) as caught:
            await write(store, fence, caller, session_id=session_id, seconds=seconds)
        assert caught.value.details == {
            "field": "fencing_token",
            "lease": fence.lease,
            "holder": holder,
            "current_token": token,
        }
    place = address("k", session_id=session_id)
    entry = await store.memory.get(place, now=NOON, guard=allow if session_id else None)
    assert entry.version == 1


async def test_a_message_is_fenced_by_a_lease_of_its_session(store: Store) -> None:
    await add_session(store)
    await acquire(store, name="server-wide")
    await acquire(store, session_id="session_1")
    added = await add_message(store, fence=Fence("deploy", 1), created_at=at(9))
    assert added.seq == 1
    for fence, seconds in ((Fence("deploy", 1), 10), (Fence("server-wide", 1), 0)):
        with pytest.raises(LeaseLost):
            await add_message(store, fence=fence, created_at=at(seconds))
    with pytest.raises(LeaseLost):
        await add_message(store, fence=Fence("deploy", 1), sender=BOB)
    assert (await store.sessions.get("session_1")).last_seq == 1


async def test_the_guard_comes_before_the_fence_and_the_parent_after_it(store: Store) -> None:
    await add_session(store)
    lost = Fence("deploy", 1)
    with pytest.raises(LeaseLost):
        await add_message(store, fence=lost, parent_message_id=99)
    await acquire(store, session_id="session_1")
    with pytest.raises(MessageNotFound):
        await add_message(store, fence=lost, parent_message_id=99)
    await store.sessions.close("session_1", NOON, allow, make_audit())
    for fence in (lost, Fence("deploy", 7)):
        with pytest.raises(SessionClosed):
            await add_message(store, fence=fence, guard=writer_guard(ALICE))


async def test_a_retry_of_an_acknowledged_write_needs_no_lease_any_more(store: Store) -> None:
    await add_session(store)
    await acquire(store, session_id="session_1")
    keyed = {"idempotency_key": "once", "fingerprint": "f"}
    fence = Fence("deploy", 1)
    first = await add_message(store, fence=fence, **keyed)
    again = await add_message(store, fence=fence, created_at=at(60), **keyed)
    assert (again.id, again.seq, again.duplicate) == (first.id, first.seq, True)
    await acquire(store)
    await write(store, fence, **keyed)
    await write(store, fence, seconds=60, **keyed)
    assert (await store.memory.get(address("k"), now=NOON, guard=None)).version == 1


async def test_a_refused_write_leaves_no_idempotency_record(store: Store) -> None:
    keyed = {"idempotency_key": "once", "fingerprint": "f"}
    with pytest.raises(LeaseLost):
        await write(store, Fence("deploy", 1), **keyed)
    with pytest.raises(MemoryNotFound):
        await store.memory.get(address("k"), now=NOON, guard=None)
    await acquire(store)
    await write(store, Fence("deploy", 1), **keyed)


# The model


agents = st.sampled_from([ALICE, BOB, CAROL])
steps = st.one_of(
    st.tuples(st.just("acquire"), agents, st.integers(1, 6)),
    st.tuples(st.just("release"), agents, st.integers(0, 3)),
    st.tuples(st.just("write"), agents, st.integers(0, 3)),
    st.tuples(st.just("pass"), st.integers(1, 4)),
)


class LeaseModel:
    """One lease: who has held it, with which tokens, and since when nobody does."""

    def __init__(self) -> None:
        self.now_s = 0
        self.holder: str | None = None
        self.expires_s = 0
        self.tokens = [0]  # of all holdings so far

    def is_held(self) -> bool:
        return self.holder is not None and self.now_s < self.expires_s

    def holds(self, caller: Caller, token: int) -> bool:
        return self.is_held() and (self.holder, self.tokens[-1]) == (caller.agent_id, token)

    def token(self, age: int) -> int:
        """The newest token, or one that is `age` holdings older."""
        return self.tokens[max(len(self.tokens) - 1 - age, 0)]


@given(script=st.lists(steps, max_size=40))
@settings(max_examples=100, deadline=None)
def test_at_most_one_holds_it_tokens_grow_and_a_stale_one_is_never_accepted(
    blocking: BlockingStore, script: list[tuple[Any, ...]]
) -> None:
    async def check() -> None:
        store, model, session_id = blocking.store, LeaseModel(), blocking.next_name()
        await add_session(store, session_id)
        for step, *arguments in script:
            if step == "pass":
                model.now_s += arguments[0]
            else:
                await LEASE_STEPS[step](store, model, session_id, *arguments)
            leases = await held(store, session_id=session_id, seconds=model.now_s)
            assert [lease.holder for lease in leases] == [model.holder] * model.is_held()

    blocking.run(check())


async def acquire_both(
    store: Store, model: LeaseModel, session_id: str, caller: Caller, ttl_s: int
) -> None:
    attempt = await acquire(store, caller, session_id=session_id, seconds=model.now_s, ttl_s=ttl_s)
    if model.is_held():
        assert attempt.is_acquired is (model.holder == caller.agent_id)
        assert attempt.lease.fencing_token == model.tokens[-1]
    else:
        assert attempt.is_acquired
        assert attempt.lease.fencing_token > model.tokens[-1]
        model.tokens.append(attempt.lease.fencing_token)
    if attempt.is_acquired:
        model.holder, model.expires_s = caller.agent_id, model.now_s + ttl_s
    assert (attempt.lease.holder, attempt.lease.expires_at) == (model.holder, at(model.expires_s))


async def release_both(
    store: Store, model: LeaseModel, session_id: str, caller: Caller, age: int
) -> None:
    token = model.token(age)
    is_released = await release(store, token, caller, session_id=session_id, seconds=model.now_s)
    assert is_released is model.holds(caller, token)
    if is_released:
        model.holder = None


async def write_both(
    store: Store, model: LeaseModel, session_id: str, caller: Caller, age: int
) -> None:
    token = model.token(age)
    writing = write(
        store, Fence("deploy", token), caller, session_id=session_id, seconds=model.now_s
    )
    if model.holds(caller, token):
        await writing
    else:
        with pytest.raises(LeaseLost):
            await writing


LEASE_STEPS: dict[str, Any] = {
    "acquire": acquire_both,
    "release": release_both,
    "write": write_both,
}


# Leases on paths


async def test_overlapping_paths_have_one_holder_until_they_are_free(store: Store) -> None:
    first = await acquire(store, ALICE, "parser", paths=("src/**", "docs/a.md"))
    assert first.lease.paths == ("src/**", "docs/a.md")
    refused = await acquire(store, BOB, "fix", seconds=1, paths=("*/*.py",))
    assert refused == LeaseAttempt(first.lease, is_acquired=False)
    # Of her own, on other paths, and without paths.
    assert (await acquire(store, ALICE, "more", paths=("src/a.py",), ttl_s=5)).is_acquired
    assert (await acquire(store, BOB, "docs", paths=("docs/b*",))).is_acquired
    assert (await acquire(store, BOB, "deploy")).lease.paths == ()
    other_thread = replace(ALICE, instance="two")
    assert not (await acquire(store, other_thread, "x", paths=("src/x",))).is_acquired
    # A renewal leaves the paths or replaces them, if nobody holds the new ones.
    assert (await acquire(store, ALICE, "parser", seconds=2)).lease.paths == first.lease.paths
    assert not (await acquire(store, ALICE, "parser", paths=("docs/*",))).is_acquired
    assert (await acquire(store, ALICE, "parser", seconds=2, paths=("lib/**",))).is_acquired
    assert not (await acquire(store, BOB, "fix", seconds=3, paths=("*/*.py",))).is_acquired
    late = await acquire(store, BOB, "fix", seconds=5, paths=("src/*.py",))
    assert late.is_acquired  # the second lease of hers has expired by then
    assert (await acquire(store, BOB, "parser", seconds=12)).lease.paths == ()
    listed = await store.leases.list_held(None, limit=10, now=at(12), guard=None)
    assert {one.name: one.paths for one in listed} == {"fix": ("src/*.py",), "parser": ()}
    held = await store.leases.list_of_holders(["bob"], ALICE, now=at(12))
    assert [(one.name, one.paths) for one in held] == [("fix", ("src/*.py",)), ("parser", ())]


async def test_paths_of_other_sessions_do_not_matter(store: Store) -> None:
    for session_id in ("session_1", "session_2"):
        await add_session(store, session_id)
        attempt = await acquire(
            store, make_caller(session_id), "x", session_id=session_id, paths=("**",)
        )
        assert attempt.is_acquired
    assert (await acquire(store, BOB, "x", paths=("**",))).is_acquired


async def test_of_those_that_take_overlapping_paths_at_once_one_gets_them(store: Store) -> None:
    attempts = await asyncio.gather(
        *(
            acquire(store, make_caller(f"agent-{n}"), f"lease-{n}", paths=("a/*", f"b/{n}"))
            for n in range(12)
        )
    )
    assert sum(one.is_acquired for one in attempts) == 1
    assert len({one.lease.name for one in attempts}) == 1


async def test_the_paths_held_in_a_session_are_limited(store: Store) -> None:
    for n in range(MAX_PATH_LEASES):
        assert (await acquire(store, name=f"lease-{n}", paths=(f"a/{n}",))).is_acquired
    with pytest.raises(Conflict):
        await acquire(store, name="one more", paths=("b",))
    assert (await acquire(store, name="lease-3", paths=("b",))).is_acquired
    await add_session(store)
    size = MAX_PATH_CHARS // 8
    for n in range(8):
        long = (f"{n}" + "x" * (size - 1),)
        assert (await acquire(store, name=f"{n}", session_id="session_1", paths=long)).is_acquired
    with pytest.raises(Conflict):
        await acquire(store, name="9", session_id="session_1", paths=("y",))
