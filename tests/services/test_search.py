"""Searching: what is acknowledged is found, only by those who may see it, and what was left out is said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.errors import InvalidArgument, SessionNotFound
from shared_context_server.models import (
    Access,
    Caller,
    MemoryAddress,
    Permission,
    Visibility,
)
from shared_context_server.services import lookup, search, search_state
from shared_context_server.services.candidates import Candidates
from shared_context_server.services.scoring import MAX_QUERY_WORDS
from shared_context_server.services.search_request import SortOrder, Within
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import MemoryWrite
from shared_context_server.storage.rules.pages import DEFAULT_PAGE_BYTES
from tests.services.indexed import Indexed, contents_of, open_indexed
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    add_message,
    add_session,
    allow,
    at,
    make_audit,
    make_caller,
)

RANDOM = random.Random(7)


@pytest.fixture
async def indexed(tmp_path: Path) -> AsyncIterator[Indexed]:
    async with open_indexed(tmp_path / "data") as opened:
        await add_session(opened.services.store)
        yield opened


def make_words(count: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(RANDOM.choices(letters, k=7)) for _ in range(count))


async def remember(
    indexed: Indexed, place: MemoryAddress, value: Any, *, caller: Caller = ALICE, **fields: Any
) -> None:
    defaults: dict[str, Any] = {"value": value, "metadata": {}, "expires_at": None}
    written = MemoryWrite(**defaults | fields)
    guard = None if place.session_id is None else allow
    await indexed.services.store.memory.write(
        place, caller, lambda _: written, now=utc_now(), guard=guard
    )


async def test_a_search_sees_what_was_acknowledged_before_it(indexed: Indexed) -> None:
    for index in range(6):
        await indexed.fill([f"finding number {index}"])
        answer = await indexed.find(f"number {index}")
        assert contents_of(answer)[0] == f"finding number {index}"
        assert (answer.scanned, answer.exhaustive) == (index + 1, True)
        if index % 2:
            await indexed.catch_up()
    answer = await indexed.find("findng numbr 0")  # from the index
    assert (answer.scanned, answer.exhaustive, len(answer.hits)) == (6, True, 6)


async def test_most_of_a_log_is_not_compared(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MIN_CANDIDATES", 20)
    await asyncio.gather(
        *(
            add_message(indexed.services.store, content=f"common words {make_words(3)} {number}")
            for number in range(300)
        )
    )
    await indexed.fill(["the only needle of common words"])
    await indexed.fill([f"common words {number}" for number in range(99)])
    await indexed.catch_up()
    compared = 0
    score = search_state.score_in_steps

    def count(query: Any, texts: Any, found: Any) -> Any:
        nonlocal compared
        compared += len(texts)
        return score(query, texts, found)

    monkeypatch.setattr(search_state, "score_in_steps", count)
    answer = await indexed.find("neddle common words")
    assert contents_of(answer)[0] == "the only needle of common words"
    assert (answer.scanned, answer.exhaustive) == (400, True)
    assert 0 < compared <= 40
    # Equals come newest first, out of all.
    assert contents_of(await indexed.find("common")) == [
        f"common words {number}" for number in range(98, 88, -1)
    ]


async def test_neighbours_come_first_though_mistyped_and_far_more_texts_have_the_words(
    indexed: Indexed,
) -> None:
    await indexed.fill(["the cloud servers broke", "ella que que", "she kno the kno of it"])
    await indexed.fill(
        content
        for number in range(150)
        for content in (
            f"servers {number} of a cloud",
            f"que no ella que {number}",
            f"of kno the only kno she it {number}",
        )
    )
    await indexed.catch_up()
    for query, first in (
        ("colud servrs", "the cloud servers broke"),
        ("ella que que", "ella que que"),
        ("kno the kno", "she kno the kno of it"),
    ):
        assert contents_of(await indexed.find(query))[0] == first


@pytest.mark.parametrize(
    "query, first, other",
    [
        ("error 404", "error 404 page", "error x{} 404 y"),
        ("今天 天气", "今天 天气 好", "今天我们看 {} 天气"),
        ("今天 天气", "今天天气好", "今天我们看 {} 天气"),
        ("東京 大阪", "東京 大阪 間", "東京 と {} 大阪"),
        ("สวัสดี ครับ", "สวัสดี ครับ ผม", "สวัสดี {} ผม ครับ"),
        ("deploy 数据库", "deploy 数据库 now", "deploy {} the 数据库"),
        ("v1.2 v1.3", "from v1.2 v1.3", "v1.2 or {} v1.3"),
        ("e1234 e5678", "both e1234 e5678", "e1234 {} e5678"),
        ("a-b c", "the a-b c", "a-b or c {}"),
        ("user id 7", "a user_id 7", "user {} id 7"),
    ],
)
async def test_neighbours_come_first_in_every_script_and_among_numbers(
    indexed: Indexed, query: str, first: str, other: str
) -> None:
    await indexed.fill([first, *(other.format(f"x{number}") for number in range(150))])
    await indexed.catch_up()
    assert contents_of(await indexed.find(query, limit=1)) == [first]


@pytest.mark.parametrize("beginning", ["67877ba", "67877bac9", "ba67877"])
async def test_a_hash_is_found_by_its_beginning(indexed: Indexed, beginning: str) -> None:
    known = [f"merged {found} today" for found in ("67877bac93d1f00", "ba67877c93d1f00")]
    await indexed.fill(known)
    await indexed.catch_up()
    await indexed.fill(["something else"])
    expected = [text for text in known if f" {beginning}" in text]
    assert contents_of(await indexed.find(beginning))[:1] == expected


async def test_memory_is_on_the_pages_beside_far_more_messages_that_match_less(
    indexed: Indexed,
) -> None:
    for number in range(30):
        place = MemoryAddress(f"plan/{number}", "session_1", None)
        await remember(indexed, place, f"database migration mem {number}")
    await indexed.fill([f"database x migration {number}" for number in range(200)])
    await indexed.catch_up()
    for limit in (20, 33):
        found, cursor = list[MemoryAddress](), None
        for _ in range(-(-230 // limit)):
            answer = await indexed.find(
                "databse migration", within=Within.ALL, limit=limit, cursor=cursor
            )
            found += [hit.address for hit in answer.memory]
            cursor = answer.next_cursor
        assert len(set(found)) == len(found) == 30


async def test_a_cursor_of_another_query_is_refused(indexed: Indexed) -> None:
    await indexed.fill([f"plan of database {number}" for number in range(5)])
    cursor = (await indexed.find("plan", limit=2)).next_cursor
    assert (await indexed.find("plan", limit=3, cursor=cursor)).hits
    for query, fields in (("database", {}), ("plan", {"sender": "alice"})):
        with pytest.raises(InvalidArgument, match="other arguments") as caught:
            await indexed.find(query, cursor=cursor, **fields)
        assert caught.value.details["field"] == "cursor"


async def test_only_what_the_caller_sees_is_found_and_counted(indexed: Indexed) -> None:
    store = indexed.services.store
    await add_session(store, "closed", access=Access.INVITED, invited=("bob",))
    kinds = {
        "secret of two": {"visibility": Visibility.PRIVATE, "recipients": ("bob",)},
        "secret of all": {},
        "secret of claudes": {"visibility": Visibility.AGENT_ONLY},
        "secret of admins": {"visibility": Visibility.ADMIN_ONLY},
    }
    nobody = make_caller("nobody", "x", Permission.READ)
    both = {"secret of two", "secret of all", "secret of claudes"}
    seen = {
        BOB: both | {f"invited {content}" for content in both},
        ALICE: both | {f"invited {content}" for content in both},
        CAROL: {"secret of all"},
        nobody: {"secret of all"},
        ADMIN: set(kinds) | {f"invited {content}" for content in kinds},
    }
    for is_indexed in (False, True):
        if is_indexed:
            await indexed.catch_up()
        else:
            for content, fields in kinds.items():
                await indexed.fill([content], **fields)
                await indexed.fill([f"invited {content}"], "closed", **fields)
        for caller, contents in seen.items():
            answer = await indexed.find("secret", caller=caller, session_id=None)
            assert set(contents_of(answer)) == contents, (caller.agent_id, is_indexed)
            assert (answer.scanned, answer.exhaustive) == (len(contents), True)
            within = {content for content in contents if "invited" not in content}
            answer = await indexed.find("secret", caller=caller)
            assert (set(contents_of(answer)), answer.scanned) == (within, len(within))
    answer = await indexed.find("secret", visibility=Visibility.PRIVATE)
    assert contents_of(answer) == ["secret of two"]
    assert contents_of(await indexed.find("secret", sender="bob")) == []
    for caller in (CAROL, nobody):
        with pytest.raises(SessionNotFound):
            await indexed.find("secret", caller=caller, session_id="closed")
    with pytest.raises(SessionNotFound):
        await indexed.find("x", session_id="session_0")


async def test_the_policy_is_asked_for_what_the_index_finds(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index whose audiences are wrong, as a damaged one, shows nothing that is not the caller's."""
    await indexed.fill(["secret plan"], visibility=Visibility.PRIVATE)
    await remember(indexed, MemoryAddress("plan", None, "alice"), "secret")
    await indexed.catch_up()
    of_all = lookup.caller_keys(replace(ADMIN, agent_id="alice"))
    monkeypatch.setattr(lookup, "caller_keys", lambda caller: of_all)
    for session_id in ("session_1", None):
        answer = await indexed.find("secret plan", session_id=session_id, within=Within.ALL)
        assert (answer.hits, answer.memory) == ([], [])


async def test_memory_is_found_where_it_may_be_read(indexed: Indexed) -> None:
    places = {
        "own": MemoryAddress("own", None, "alice"),
        "everywhere": MemoryAddress("everywhere", None, None),
        "session": MemoryAddress("session", "session_1", None),
        "own in session": MemoryAddress("own in session", "session_1", "alice"),
    }

    async def find_keys(caller: Caller, query: str = "tresure", **fields: Any) -> set[str]:
        answer = await indexed.find(query, caller=caller, within=Within.MEMORY, **fields)
        assert answer.exhaustive
        assert answer.hits == []
        return {hit.address.key for hit in answer.memory}

    await indexed.catch_up()
    for place in places.values():
        await remember(indexed, place, {"deep": ["treasure"]})
    for _ in range(2):  # by the change stream, then by the index
        assert await find_keys(ALICE, session_id=None) == set(places)
        assert await find_keys(ALICE) == {"session", "own in session"}
        for caller in (BOB, ADMIN):
            assert await find_keys(caller, session_id=None) == {"everywhere", "session"}
            assert await find_keys(caller) == {"session"}
        await indexed.catch_up()
    answer = await indexed.find("treasure", caller=BOB, session_id=None, within=Within.MEMORY)
    assert answer.scanned == 2
    await indexed.fill(["a treasure of a message"])
    both = await indexed.find("treasure", session_id=None, within=Within.ALL)
    assert (len(both.hits), len(both.memory)) == (1, 2)
    # A new version replaces the old one, whether the index has it yet or not.
    await remember(indexed, places["everywhere"], "a ruby")
    await remember(
        indexed, places["session"], "treasure", expires_at=utc_now() + timedelta(milliseconds=1)
    )
    await indexed.services.store.memory.delete(
        places["own"], lambda _: None, now=utc_now(), guard=None, audit=make_audit()
    )
    for _ in range(2):
        assert await find_keys(ALICE, session_id=None) == {"own in session"}
        assert await find_keys(BOB, "ruby", session_id=None) == {"everywhere"}
        await indexed.catch_up()


async def test_the_newest_can_come_first(indexed: Indexed) -> None:
    await indexed.fill(["red apple", "red apple pie", "red aple"])
    for _ in range(2):
        answer = await indexed.find("red apple", sort=SortOrder.NEWEST)
        assert contents_of(answer) == ["red aple", "red apple pie", "red apple"]
        await indexed.catch_up()


async def test_filters_hold_for_what_the_index_finds(indexed: Indexed) -> None:
    for seconds in range(4):
        await indexed.fill([f"tick {seconds}"], created_at=at(seconds), metadata={"kind": "clock"})
    await indexed.catch_up()
    answer = await indexed.find("tick", start_time=at(1), end_time=at(2))
    assert set(contents_of(answer)) == {"tick 1", "tick 2"}
    assert len((await indexed.find("clock")).hits) == 4
    assert (await indexed.find("clock", search_metadata=False)).hits == []


async def test_a_word_within_a_word_is_found(indexed: Indexed) -> None:
    await indexed.fill(["the database is up", "nothing else"])
    await indexed.catch_up()
    assert contents_of(await indexed.find("abas")) == ["the database is up"]
    assert contents_of(await indexed.find("!!")) == []  # without a word to look up


@pytest.mark.parametrize(
    "query, others",
    [
        ("sense", ["all of it is nonsense"]),
        ("defensor", ["la defensa del norte", "in your defense"]),
        ("lost sense", ["nonsense was lots of it"]),
        ("了任务明", ["在运行了的任务图片方法不可以\uff0c不的问题是是条件了漏洞。"]),
        ("소리가나", ["소리나가 좋다"]),
    ],
)
async def test_what_is_similar_is_found_beside_the_word_itself(
    indexed: Indexed, query: str, others: list[str]
) -> None:
    await indexed.fill([f"{query} {number}" for number in range(12)])
    await indexed.fill([*others, "something else altogether"])
    await indexed.catch_up()
    found = contents_of(await indexed.find(query, limit=20))
    assert len(found) == 12 + len(others)
    assert set(others) < set(found)


async def test_candidates_that_cannot_reach_the_page_are_not_read(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await indexed.fill([f"amber basalt corundum {number}" for number in range(12)])
    await indexed.fill([f"amber basalt {number}" for number in range(90)])
    await indexed.catch_up()
    read: list[int] = []
    read_messages = search.read_messages

    def note(services: Any, caller: Any, ids: list[int]) -> Any:
        read.extend(ids)
        return read_messages(services, caller, ids)

    monkeypatch.setattr(search, "read_messages", note)
    answer = await indexed.find("amber basalt corundum", fuzzy_threshold=50)
    assert all("corundum" in content for content in contents_of(answer))
    assert len(read) == 15
    # A longer page needs them.
    read.clear()
    assert (
        len((await indexed.find("amber basalt corundum", fuzzy_threshold=50, limit=20)).hits) == 20
    )
    assert len(read) >= 100


async def test_the_loop_turns_while_long_texts_are_searched(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "TIME_LIMIT_S", 60)
    await indexed.fill([make_words(5_000) for _ in range(4)])
    searching = asyncio.create_task(indexed.find(make_words(MAX_QUERY_WORDS)))
    turns = 0
    while not searching.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await searching).exhaustive
    assert turns > 20


async def test_a_search_whose_time_ends_keeps_what_it_has_of_long_texts(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await indexed.fill([f"needle {number} " + "hay " * 20_000 for number in range(6)])
    await indexed.catch_up()
    score, groups = search_state.score_in_steps, 0

    def score_some(*arguments: Any, **named: Any) -> Any:
        nonlocal groups
        groups += 1
        matches = yield from score(*arguments, **named)
        while groups > 2:  # as one that never ends
            yield
        return matches

    monkeypatch.setattr(search_state, "score_in_steps", score_some)
    monkeypatch.setattr(search, "TIME_LIMIT_S", 2.0)
    answer = await indexed.find("needle")
    assert (len(answer.hits), answer.exhaustive) == (2, False)


async def test_without_an_index_the_newest_messages_are_compared_while_time_lasts(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = replace(indexed.services, candidates=Candidates(None))
    others = replace(indexed, services=services)
    await indexed.fill([f"needle {index}" for index in range(50)])
    whole = await others.find("needle")
    assert (whole.scanned, whole.exhaustive) == (50, True)
    monkeypatch.setattr("shared_context_server.services.uncovered.READ_STEP", 10)
    score, pages = search_state.score_in_steps, 0

    def score_some(*arguments: Any, **named: Any) -> Any:
        nonlocal pages
        pages += 1
        matches = yield from score(*arguments, **named)
        while pages > 2:  # as one that never ends
            yield
        return matches

    monkeypatch.setattr(search_state, "score_in_steps", score_some)
    monkeypatch.setattr(search, "TIME_LIMIT_S", 0.5)
    answer = await others.find("needle")
    assert (answer.scanned, answer.exhaustive) == (20, False)
    assert contents_of(answer)[:2] == ["needle 49", "needle 48"]


async def test_a_query_of_too_many_words_is_refused(indexed: Indexed) -> None:
    await indexed.find(" ".join(f"w{index}" for index in range(MAX_QUERY_WORDS)))
    with pytest.raises(InvalidArgument) as caught:
        await indexed.find(" ".join(f"w{index}" for index in range(MAX_QUERY_WORDS + 1)))
    assert caught.value.details["field"] == "query"


async def test_long_hits_are_shortened_where_the_answer_is_full(indexed: Indexed) -> None:
    filler = "lorem ipsum " * 2500
    contents = [f"{filler} needle {filler}"] * 8
    await indexed.fill(contents, recipients=("bob",), metadata={"note": "x"})
    await indexed.catch_up()
    answer = await indexed.find("needle")
    messages = [hit.message for hit in answer.hits]
    assert len(messages) == 8
    whole = [hit.message for hit in answer.hits if not hit.shortened]
    short = [hit for hit in answer.hits if hit.shortened]
    assert whole
    assert short
    assert sum(len(message.content) for message in messages) < DEFAULT_PAGE_BYTES
    assert all("needle" in hit.match_preview for hit in answer.hits)
    assert all(hit.message.content == hit.match_preview for hit in short)
    assert all(message.metadata == {"note": "x"} for message in whole)


async def test_all_sessions_are_searched_without_an_index_too(indexed: Indexed) -> None:
    await add_session(indexed.services.store, "session_2")
    await indexed.fill(["needle one"])
    await indexed.fill(["needle two"], "session_2")
    answer = await indexed.find("needle", session_id=None)
    assert set(contents_of(answer)) == {"needle one", "needle two"}
    assert (answer.scanned, answer.exhaustive) == (2, True)


async def test_messages_that_a_caller_may_not_see_do_not_change_scores(indexed: Indexed) -> None:
    """Nor do they change which messages are candidates."""
    store = indexed.services.store
    secret: dict[str, Any] = {"recipients": ("carol",), "visibility": Visibility.PRIVATE}
    scores = []
    for name, count in (("session_2", 0), ("session_3", 30)):
        await add_session(store, name)
        await indexed.fill(["the server failed", "the tokamak stands", "a server, a tokamak"], name)
        await indexed.fill(["server tokamak servertokmk"] * count, name, **secret)
        await indexed.catch_up()
        for query in ("server tokamak", "servertokmk stands"):
            answer = await indexed.find(query, session_id=name, fuzzy_threshold=1)
            assert answer.hits
            scores.append([(hit.message.content, hit.score) for hit in answer.hits])
    assert scores[:2] == scores[2:]
