"""Searching: nobody else waits, memory is bounded, and what was left out is said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.errors import InvalidArgument, SessionNotFound
from shared_context_server.models import Access, Message, Visibility
from shared_context_server.server import open_server
from shared_context_server.services import corpus, search, text_index
from shared_context_server.services.context import Services
from shared_context_server.services.corpus import CorpusCache
from shared_context_server.services.scoring import MAX_QUERY_WORDS
from shared_context_server.services.search import SearchAnswer, search_context
from shared_context_server.services.search_request import SearchRequest
from shared_context_server.storage.rules.pages import DEFAULT_PAGE_BYTES
from tests.settings import make_settings
from tests.storage.builders import ADMIN, ALICE, BOB, CAROL, add_message, add_session

RANDOM = random.Random(7)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with open_server(make_settings(tmp_path / "data")) as server:
        yield server.services


def make_words(count: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(RANDOM.choices(letters, k=7)) for _ in range(count))


async def find(services: Services, query: str, *, caller: Any = BOB, **fields: Any) -> SearchAnswer:
    asked = SearchRequest(session_id="session_1", query=query, fuzzy_threshold=60, limit=10)
    return await search_context(services, caller, replace(asked, **fields))


async def fill(services: Services, contents: list[str], **fields: Any) -> None:
    await asyncio.gather(
        *(add_message(services.store, content=content, **fields) for content in contents)
    )


async def test_a_search_sees_what_was_acknowledged_before_it(services: Services) -> None:
    await add_session(services.store)
    for index in range(5):
        await add_message(services.store, content=f"finding number {index}")
        answer = await find(services, f"number {index}")
        assert answer.hits[0].message.content == f"finding number {index}"
        assert (answer.scanned, answer.exhaustive) == (index + 1, True)


async def test_a_log_of_many_blocks_is_searched_whole(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "BLOCK_MESSAGES", 40)
    await add_session(services.store)
    await fill(services, [f"alpha {index:03}" for index in range(130)])
    for further in (0, 1, 60):  # none, some, and more than a block, behind what is known
        await fill(services, [f"more {index}" for index in range(further)])
        answer = await find(services, "alpha 000")
        assert answer.hits[0].message.content == "alpha 000"
        assert answer.exhaustive
    assert answer.scanned == 191


async def test_nothing_is_counted_twice_while_others_read_on(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "READ_STEP", 10)
    monkeypatch.setattr(corpus, "BLOCK_MESSAGES", 60)
    await add_session(services.store)
    await fill(services, [f"needle {index}" for index in range(200)])
    match = search._match

    def match_while_others_read(block: Any, *arguments: Any) -> Any:
        scores = yield from match(block, *arguments)
        kept = services.corpora._corpora["session_1"]
        for _ in range(100):  # the reading goes on in tasks of its own
            if kept.low == 0:
                break
            yield
        return scores

    monkeypatch.setattr(search, "_match", match_while_others_read)
    monkeypatch.setattr(search, "TIME_LIMIT_S", 30)
    for answer in await asyncio.gather(*(find(services, "needle 7") for _ in range(5))):
        assert (answer.scanned, answer.exhaustive) == (200, True)


async def test_equals_come_newest_first_over_blocks(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "BLOCK_MESSAGES", 4)
    await add_session(services.store)
    await fill(services, ["same words"] * 30)
    answer = await find(services, "same words")
    assert [hit.message.seq for hit in answer.hits] == list(range(30, 20, -1))


async def test_the_loop_turns_while_long_texts_are_searched(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "TIME_LIMIT_S", 60)
    await add_session(services.store)
    await fill(services, [make_words(5_000) for _ in range(4)])
    searching = asyncio.create_task(find(services, make_words(MAX_QUERY_WORDS)))
    turns = 0
    while not searching.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await searching).exhaustive
    assert turns > 20


async def test_a_search_that_takes_too_long_says_what_it_has_left_out(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "BLOCK_MESSAGES", 10)
    await add_session(services.store)
    await fill(services, [f"needle {index}" for index in range(50)])
    await find(services, "needle")
    blocks: list[Any] = []
    match = search._match

    def match_some(*arguments: Any) -> Any:
        blocks.append(arguments)
        scores = yield from match(*arguments)
        while len(blocks) > 2:  # as one that never ends
            yield
        return scores

    monkeypatch.setattr(search, "_match", match_some)
    answer = await find(services, "needle")
    assert not answer.exhaustive
    assert 0 < answer.scanned < 50
    assert [hit.message.content for hit in answer.hits][:2] == ["needle 49", "needle 48"]


async def test_a_query_of_too_many_words_is_refused(services: Services) -> None:
    await add_session(services.store)
    await find(services, " ".join(f"w{index}" for index in range(MAX_QUERY_WORDS)))
    with pytest.raises(InvalidArgument) as caught:
        await find(services, " ".join(f"w{index}" for index in range(MAX_QUERY_WORDS + 1)))
    assert caught.value.details["field"] == "query"


async def test_what_is_kept_stays_within_its_bytes(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "TIME_LIMIT_S", 60)
    monkeypatch.setattr(corpus, "BLOCK_BYTES", 1_000_000)
    monkeypatch.setattr(corpus, "ROOM_BYTES", 1_000_000)
    kept = CorpusCache(services.store, max_bytes=4_000_000)
    others = replace(services, corpora=kept)
    for number in range(3):
        await add_session(services.store, f"session_{number}")
        contents = [make_words(2_000) for _ in range(12)]
        for content in contents:
            await add_message(services.store, f"session_{number}", content=content)
        answer = await find(others, contents[0][:30], session_id=f"session_{number}")
        assert (answer.scanned, answer.exhaustive) == (12, True)
        assert 0 < kept.size_bytes <= 4_000_000
    # The one that is searched grows too.
    for _ in range(12):
        await add_message(services.store, "session_2", content=make_words(2_000))
        await find(others, "word", session_id="session_2")
        assert kept.size_bytes <= 4_000_000


async def test_nothing_of_metadata_but_its_words_is_kept(services: Services) -> None:
    await add_session(services.store)
    await add_message(services.store, metadata={"k": [{"deep": "treasure"}] * 9}, content="x")
    answer = await find(services, "treasure")
    assert answer.hits[0].message.metadata == {"k": [{"deep": "treasure"}] * 9}
    kept, _, _ = await services.corpora.refresh("session_1", float("inf"))
    (message,) = kept.blocks[0].messages
    assert (message.content, message.metadata) == ("", {})


async def test_many_searchers_share_the_reads_of_a_log(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_session(services.store)
    await fill(services, ["finding"] * 20)
    await find(services, "finding")
    reads = 0
    read_log = services.store.messages.read_log

    async def count_reads(*arguments: Any, **named: Any) -> list[Message]:
        nonlocal reads
        reads += 1
        return await read_log(*arguments, **named)

    monkeypatch.setattr(services.store.messages, "read_log", count_reads)
    answers = await asyncio.gather(*(find(services, "finding") for _ in range(25)))
    assert all(answer.scanned == 20 for answer in answers)
    assert reads <= 2


async def test_a_shared_read_is_never_older_than_the_search(services: Services) -> None:
    await add_session(services.store)
    await find(services, "x")

    async def add_and_find(number: int) -> None:
        word = f"unique{number:04}"
        await add_message(services.store, content=word)
        assert (await find(services, word)).hits[0].message.content == word

    await asyncio.gather(*(add_and_find(number) for number in range(60)))


async def test_only_what_the_caller_sees_is_found_and_counted(services: Services) -> None:
    await add_session(services.store)
    await add_message(
        services.store, content="secret plan", recipients=("bob",), visibility=Visibility.PRIVATE
    )
    await add_message(services.store, content="public plan")
    for caller, count in ((BOB, 2), (CAROL, 1), (ADMIN, 2), (ALICE, 2)):
        answer = await find(services, "plan", caller=caller)
        assert (len(answer.hits), answer.scanned) == (count, count)


async def test_messages_that_a_caller_may_not_see_do_not_change_scores(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_index, "SCORED_IN_FULL", 5)
    secret: dict[str, Any] = {"recipients": ("carol",), "visibility": Visibility.PRIVATE}
    scores = []
    for name, count in (("session_1", 0), ("session_2", 30)):
        await add_session(services.store, name)
        for content in ("the server failed", "the tokamak stands", "a server, a tokamak"):
            await add_message(services.store, name, content=content)
        for _ in range(count):
            await add_message(services.store, name, content="server tokamak", **secret)
        answer = await find(services, "server tokamak", session_id=name, fuzzy_threshold=1)
        scores.append([(hit.message.content, hit.score) for hit in answer.hits])
    assert scores[0] == scores[1]
    assert len(scores[0]) == 3


async def test_a_session_that_may_not_be_read_is_not_found(services: Services) -> None:
    await add_session(services.store, access=Access.INVITED)
    await find(services, "x", caller=ALICE)
    with pytest.raises(SessionNotFound):
        await find(services, "x", caller=BOB)
    with pytest.raises(SessionNotFound):
        await find(services, "x", session_id="session_0")


async def test_long_hits_are_shortened_where_the_answer_is_full(services: Services) -> None:
    await add_session(services.store)
    filler = "lorem ipsum " * 2500
    await fill(
        services, [f"{filler} needle {filler}"] * 8, recipients=("bob",), metadata={"note": "x"}
    )
    answer = await find(services, "needle")
    assert len(answer.hits) == 8
    whole = [hit for hit in answer.hits if not hit.shortened]
    short = [hit for hit in answer.hits if hit.shortened]
    assert whole
    assert short
    assert sum(len(hit.message.content) for hit in answer.hits) < DEFAULT_PAGE_BYTES
    assert all("needle" in hit.match_preview for hit in answer.hits)
    assert all(hit.message.content == hit.match_preview for hit in short)
    assert all(hit.message.metadata == {"note": "x"} for hit in whole)


async def test_a_deleted_session_is_forgotten(services: Services) -> None:
    await add_session(services.store)
    await fill(services, ["needle"])
    await find(services, "needle")
    assert services.corpora.size_bytes > 0
    services.corpora.forget("session_1")
    assert services.corpora.size_bytes == 0


async def test_the_session_that_was_searched_longest_ago_is_dropped_first(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["session_a", "session_b", "session_c"]
    for name in names:
        await add_session(services.store, name)
        await add_message(services.store, name, content=make_words(2_000))
    await find(services, "needle", session_id="session_a")
    size_bytes = services.corpora.size_bytes  # of one session
    monkeypatch.setattr(corpus, "ROOM_BYTES", size_bytes)
    kept = CorpusCache(services.store, max_bytes=size_bytes * 5 // 2)
    others = replace(services, corpora=kept)
    for name in (*names[:2], "session_a", "session_c"):
        answer = await find(others, "needle", session_id=name)
        assert answer.exhaustive

    def is_kept(name: str) -> bool:
        before = kept.size_bytes
        kept.forget(name)
        return kept.size_bytes < before

    assert [name for name in names if is_kept(name)] == ["session_a", "session_c"]


@pytest.mark.parametrize(
    "value, texts",
    [
        ({"k": ["a", {"l": 1.5}, None, True]}, ["k", "a", "l", "1.5"]),
        ([[], {}, [[["deep"]]], "end"], ["deep", "end"]),
        ("alone", ["alone"]),
    ],
)
def test_the_texts_of_a_value_come_in_its_order(value: Any, texts: list[str]) -> None:
    assert list(corpus.leaf_texts(value)) == texts
