"""The audience of the index against the policy, on arbitrary callers, sessions and messages."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shared_context_server import policy
from shared_context_server.models import (
    Access,
    Caller,
    MemoryAddress,
    MemoryEntry,
    Message,
    Permission,
    Session,
    SessionStatus,
    Visibility,
)
from shared_context_server.search_index.audience import (
    Audience,
    caller_keys,
    memory_audience,
    message_audience,
)
from tests.storage.builders import NOON

# Names that could be mistaken for each other, were they joined carelessly.
names = st.sampled_from(["a", "b", "*", "type:t", "agent:a", "admins", "owner:a", "A", "é"])
callers = st.builds(
    Caller,
    agent_id=names,
    agent_type=names,
    permissions=st.frozensets(st.sampled_from(Permission)).map(lambda p: p | {Permission.READ}),
    key_id=st.just("key"),
)
sessions = st.builds(
    Session,
    id=st.just("s"),
    purpose=st.just(""),
    metadata=st.just({}),
    access=st.sampled_from(Access),
    status=st.just(SessionStatus.ACTIVE),
    created_by=names,
    created_at=st.just(NOON),
    closed_at=st.none(),
    invited=st.lists(names, max_size=2).map(tuple),
)
messages = st.builds(
    Message,
    id=st.just(1),
    session_id=st.just("s"),
    seq=st.just(1),
    sender=names,
    sender_type=names,
    content=st.just(""),
    visibility=st.sampled_from(Visibility),
    recipients=st.lists(names, max_size=2),
    metadata=st.just({}),
    parent_message_id=st.none(),
    timestamp=st.just(NOON),
)
entries = st.builds(
    MemoryEntry,
    address=st.builds(
        MemoryAddress, key=st.just("k"), session_id=st.just("s"), owner=st.none() | names
    ),
    value=st.none(),
    version=st.just(1),
    metadata=st.just({}),
    created_at=st.just(NOON),
    updated_at=st.just(NOON),
    updated_by=names,
    expires_at=st.none(),
)


def can_find(caller: Caller, audience: Audience) -> bool:
    """What the index's query does with these keys."""
    keys = caller_keys(caller)
    return not set(keys.viewers).isdisjoint(audience.viewers) and (
        keys.readers is None or not set(keys.readers).isdisjoint(audience.readers)
    )


@settings(deadline=None, max_examples=500)
@given(caller=callers, session=sessions, message=messages)
def test_messages_are_found_by_those_who_may_see_them(
    caller: Caller, session: Session, message: Message
) -> None:
    may_see = policy.can_see_session(caller, session) and policy.can_see_message(caller, message)
    assert can_find(caller, message_audience(message, session)) == may_see


@settings(deadline=None, max_examples=300)
@given(caller=callers, session=sessions | st.none(), entry=entries)
def test_memory_is_found_by_its_owner_or_by_the_readers_of_its_session(
    caller: Caller, session: Session | None, entry: MemoryEntry
) -> None:
    place = entry.address
    if session is None:
        entry = replace(entry, address=replace(place, session_id=None))
    may_read = session is None or policy.can_see_session(caller, session)
    is_own = place.owner is None or place.owner == caller.agent_id
    assert can_find(caller, memory_audience(entry, session)) == (may_read and is_own)
