"""Searching over every surface: pages, orders, all sessions, memory, and what is highlighted."""

from __future__ import annotations

from typing import Any

from shared_context_server.services.paging import decode_cursor, encode_cursor
from tests.settings import ADMIN_API_KEY
from tests.surfaces.conftest import As
from tests.surfaces.test_contract import new_session

LANGUAGES = {
    "今天 天气": "今天天气很好",
    "किताब": "यह किताब है",
    "ไทย": "ภาษาไทยง่ายมาก",
    "strasse": "Die Straße ist gesperrt",
    "resume": "Her résumé is long",
    "user id": "SELECT user_id FROM accounts",
    "sevrer": "The server restarts",
}


async def read_all(who: Any, **search: Any) -> list[dict[str, Any]]:
    """Follow the cursor to the last page."""
    found: list[dict[str, Any]] = []
    cursor = None
    for _ in range(100):
        page = await who.call("search_context", **search, cursor=cursor)
        assert page["count"] == len(page["results"]) + len(page["memory"])
        found += page["results"] + page["memory"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
    raise AssertionError("the pages do not end")


async def test_pages_follow_each_other_in_both_orders(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    for number in range(9):
        words = "red green" if number % 2 else "green"
        await alice.call("add_message", session_id=session_id, content=f"{words} {number}")
    search = {"session_id": session_id, "query": "red green", "limit": 2, "fuzzy_threshold": 10}
    by_score = await read_all(alice, **search)
    assert [r["message"]["seq"] for r in by_score] == [8, 6, 4, 2, 9, 7, 5, 3, 1]
    newest = await read_all(alice, **search, sort="newest")
    assert [r["message"]["seq"] for r in newest] == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    cursor = (await alice.call("search_context", **search))["next_cursor"]
    refused = await alice.call("search_context", **search, sort="newest", cursor=cursor)
    assert (refused["code"], refused["details"]["field"]) == ("INVALID_ARGUMENT", "cursor")
    *place, _ = decode_cursor(cursor, str, str, int, int, int, str, str)
    for counts in ("9" * 900, "1," + "9" * 17):
        by_hand = encode_cursor(*place, counts)
        refused = await alice.call("search_context", **search, cursor=by_hand)
        assert (refused["code"], refused["details"]["field"]) == ("INVALID_ARGUMENT", "cursor")


async def test_without_a_session_all_that_the_caller_may_see_is_searched(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    opened, invited = await new_session(alice), await new_session(alice, access="invited")
    for session_id in (opened, invited):
        await alice.call("add_message", session_id=session_id, content="the needle is here")
    await alice.call(
        "add_message", session_id=opened, content="a secret needle", visibility="private"
    )
    for who, places in ((alice, [opened, invited, opened]), (bob, [opened])):
        found = await who.call("search_context", query="needle")
        assert [r["message"]["session_id"] for r in found["results"]] == places
        assert (found["scanned"], found["exhaustive"]) == (len(places), True)


async def test_memory_is_found_by_key_value_and_metadata_by_those_who_may_read_it(
    as_agent: As,
) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    admin = await as_agent("root", api_key=ADMIN_API_KEY)
    session_id = await new_session(alice)
    for fields in (
        {"key": "needle-place", "value": 1},
        {"key": "notes", "value": {"where": ["a needle in the hay"]}, "scope": "shared"},
        {"key": "plan", "value": "hay", "session_id": session_id, "metadata": {"t": "needle"}},
        {"key": "done", "value": "no needle", "session_id": session_id, "scope": "shared"},
    ):
        assert not (await alice.call("set_memory", **fields)).is_error
    await alice.call("add_message", session_id=session_id, content="needle")
    memory = {"query": "needle", "within": "memory"}
    for who, everywhere, here in (
        (alice, {"needle-place", "notes", "plan", "done"}, {"plan", "done"}),
        (bob, {"notes", "done"}, {"done"}),
        (admin, {"notes", "done"}, {"done"}),
    ):
        found = await who.call("search_context", **memory)
        assert {entry["key"] for entry in found["memory"]} == everywhere
        assert (found["results"], found["scanned"]) == ([], len(everywhere))
        found = await who.call("search_context", **memory, session_id=session_id)
        assert {entry["key"] for entry in found["memory"]} == here
    (both,) = [e for e in found["memory"] if e["key"] == "done"]
    assert (both["session_id"], both["scope"], both["version"]) == (session_id, "shared", 1)
    assert both["match_preview"][slice(*both["highlights"][0])] == "needle"
    mixed = await read_all(alice, query="needle", within="all", limit=2)
    assert len(mixed) == 5
    assert len({str(result) for result in mixed}) == 5


async def test_every_language_is_found_and_highlighted_as_it_is_written(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    for content in LANGUAGES.values():
        await alice.call("add_message", session_id=session_id, content=content)
    for query, content in LANGUAGES.items():
        found = await alice.call("search_context", session_id=session_id, query=query)
        best = found["results"][0]
        assert best["message"]["content"] == content, query
        marked = [best["match_preview"][start:end] for start, end in best["highlights"]]
        assert marked, query
        assert all(part in content for part in marked)


async def test_a_mode_that_needs_an_extra_names_it(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    for mode in ("semantic", "hybrid"):
        refused = await alice.call(
            "search_context", session_id=session_id, query="needle", mode=mode
        )
        assert (refused["code"], refused["details"]["extra"]) == ("INVALID_ARGUMENT", "semantic")
