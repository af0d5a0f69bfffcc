"""The contract of storage/contract: the messages of all sessions by id."""

from __future__ import annotations

import asyncio

from shared_context_server.models import Access, Caller, Permission, Visibility
from shared_context_server.storage import Store
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    add_message,
    add_session,
    allow,
    make_audit,
    make_caller,
)


async def list_ids(store: Store, caller: Caller, after_id: int = 0, limit: int = 7) -> list[int]:
    """All that the caller may see, page by page."""
    found: list[int] = []
    has_more = True
    while has_more:
        page = await store.messages.list_new(caller, after_id=after_id, limit=limit)
        assert len(page.messages) <= limit
        assert page.next_after_id >= max([after_id, *(message.id for message in page.messages)])
        found += [message.id for message in page.messages]
        after_id, has_more = page.next_after_id, page.has_more
    return found


async def test_each_sees_what_the_sessions_and_the_messages_allow(store: Store) -> None:
    await add_session(store, "open")
    await add_session(store, "invited", access=Access.INVITED, invited=("bob",))
    sent = {}
    for session_id in ("open", "invited"):
        for visibility in Visibility:
            recipients = ("carol",) if visibility is Visibility.PRIVATE else ()
            added = await add_message(
                store, session_id, visibility=visibility, recipients=recipients
            )
            sent[session_id, visibility] = added.id
    by_name = {f"{session_id} {kind}": number for (session_id, kind), number in sent.items()}

    async def list_names(caller: Caller) -> set[str]:
        ids = await list_ids(store, caller)
        newest_first = sorted(sent.values(), reverse=True)
        by_ids = await store.messages.list_by_ids(caller, [*newest_first, 2**70])
        assert [message.id for message in by_ids] == sorted(ids, reverse=True)
        return {name for name, number in by_name.items() if number in ids}

    shown = {"open public", "open private", "open agent_only"}
    invited = {"invited public", "invited private", "invited agent_only"}
    assert await list_names(ALICE) == shown | invited
    private = {"open private", "invited private"}
    assert await list_names(BOB) == (shown | invited) - private
    assert await list_names(CAROL) == {"open public", "open private"}
    assert await list_names(ADMIN) == set(by_name)
    assert await list_names(make_caller("nobody", "x", Permission.READ)) == {"open public"}


async def test_ids_are_in_order_and_paged_without_gaps(store: Store) -> None:
    await add_session(store, "a")
    await add_session(store, "b")
    added = await asyncio.gather(*(add_message(store, "ab"[n % 2]) for n in range(50)))
    ids = sorted(message.id for message in added)
    assert await list_ids(store, BOB) == ids
    assert await list_ids(store, BOB, after_id=ids[20]) == ids[21:]
    assert await list_ids(store, BOB, after_id=2**62) == []
    beyond = await store.messages.list_new(BOB, after_id=2**70, limit=1)
    assert (beyond.messages, beyond.has_more) == ([], False)


async def test_much_that_is_hidden_is_passed_in_bounded_steps(store: Store) -> None:
    await add_session(store, "hidden", access=Access.INVITED)
    await add_session(store, "seen")
    await asyncio.gather(*(add_message(store, "hidden") for _ in range(2500)))
    last = await add_message(store, "seen")
    first = await store.messages.list_new(BOB, after_id=0, limit=10)
    assert first.messages == []
    assert first.has_more
    assert await list_ids(store, BOB) == [last.id]


async def test_the_newest_id_outlives_its_message(store: Store) -> None:
    assert await store.messages.get_newest_id() == 0
    await add_session(store, "a")
    added = [await add_message(store, "a") for _ in range(3)]
    assert await store.messages.get_newest_id() == added[-1].id
    await store.sessions.delete("a", allow, make_audit())
    assert await store.messages.get_newest_id() == added[-1].id
    assert await list_ids(store, ADMIN) == []
    await add_session(store, "b")
    again = await add_message(store, "b")
    assert again.id > added[-1].id
    assert await list_ids(store, BOB, after_id=added[-1].id) == [again.id]


async def test_messages_by_their_ids_fill_one_page(store: Store) -> None:
    await add_session(store)
    contents = [f"{number} " + "long " * 4_000 for number in range(6)]
    ids = [(await add_message(store, content=content)).id for content in contents]
    first = await store.messages.list_by_ids(BOB, ids)
    assert [message.content for message in first] == contents[:3]
    rest = await store.messages.list_by_ids(BOB, ids[len(first) :])
    assert [message.content for message in rest] == contents[3:]
    assert await store.messages.list_by_ids(BOB, []) == []


async def test_messages_that_may_mention_somebody_are_listed_alone(store: Store) -> None:
    await add_session(store)
    for content, recipients in [
        ("nothing", ()),
        ("a@b", ()),
        ("wide \uff20", ()),
        ("to bob", ("bob",)),
        ("nothing again", ()),
    ]:
        await add_message(store, content=content, recipients=recipients)
    page = await store.messages.list_new(ADMIN, after_id=0, limit=9, is_addressed=True)
    assert [message.seq for message in page.messages] == [2, 3, 4]
    rest = await store.messages.list_new(
        ADMIN, after_id=page.next_after_id, limit=9, is_addressed=True
    )
    assert (rest.messages, rest.next_after_id) == ([], await store.messages.get_newest_id())


async def test_unread_messages_to_an_agent_are_those_by_others_after_its_cursors(
    store: Store,
) -> None:
    for session_id in ("read", "unread"):
        await add_session(store, session_id)
        for content, recipients in [
            ("@bob", ()),
            ("nothing", ()),
            ("to bob", ("bob", 'a"b')),
            ("to bobby", ("bobby",)),
            ("\uff20bob", ()),
        ]:
            await add_message(store, session_id, content=content, recipients=recipients)
        await add_message(store, session_id, sender=BOB, content="@bob")
    await store.sessions.set_cursor("read", BOB, 3, allow)

    async def list_places(agent_id: str, limit: int = 9) -> list[tuple[str, int]]:
        found = await store.messages.list_unread_to(agent_id, limit=limit)
        return [(message.session_id, message.seq) for message in found]

    everything = [("read", 5), ("unread", 1), ("unread", 3), ("unread", 5)]
    assert await list_places("bob") == everything
    assert await list_places("bob", limit=2) == everything[-2:]
    assert await list_places('a"b') == [("read", 3), ("unread", 3)]
    assert await list_places("nobody") == []
