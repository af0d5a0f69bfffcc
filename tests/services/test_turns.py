"""Turns go from caller to caller, and none is lost."""

from __future__ import annotations

import asyncio

import pytest

from shared_context_server.models import Caller
from shared_context_server.services.turns import Turns
from tests.storage.builders import ALICE, BOB


class Work:
    """Work that goes on until the test lets it end. `begun`: whose work has begun, in order."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.ends: list[asyncio.Event] = []

    def start(self, caller: Caller) -> asyncio.Task[None]:
        return asyncio.create_task(self._run(caller))

    async def end_first(self) -> None:
        self.ends.pop(0).set()
        await settle()

    async def _run(self, caller: Caller) -> None:
        async with self.turns.take(caller):
            end = asyncio.Event()
            self.begun.append(caller.agent_id)
            self.ends.append(end)
            await end.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_caller_with_many_requests_lets_another_one_go_first() -> None:
    work = Work(Turns(2))
    tasks = [work.start(ALICE) for _ in range(5)]
    await settle()
    tasks.append(work.start(BOB))
    await settle()
    assert work.begun == ["alice", "alice"]
    for _ in range(4):
        await work.end_first()
    assert work.begun == ["alice", "alice", "alice", "bob", "alice", "alice"]
    for _ in range(2):
        await work.end_first()
    await asyncio.gather(*tasks)


async def test_who_has_gone_is_passed_over() -> None:
    work = Work(Turns(1))
    first = work.start(ALICE)
    await settle()
    gone = [work.start(ALICE) for _ in range(3)]
    last = work.start(BOB)
    await settle()
    for task in gone:
        task.cancel()
    await work.end_first()
    assert work.begun == ["alice", "bob"]
    await work.end_first()
    await asyncio.gather(first, last)


async def test_a_turn_that_comes_to_one_who_goes_at_that_moment_is_passed_on() -> None:
    turns = Turns(1)
    work = Work(turns)
    async with turns.take(ALICE):
        gone, last = work.start(ALICE), work.start(BOB)
        await settle()
    # The turn was given to the first one, which has not run since.
    gone.cancel()
    await settle()
    assert work.begun == ["bob"]
    await work.end_first()
    await last


async def test_an_error_gives_the_turn_back() -> None:
    turns = Turns(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with turns.take(ALICE):
                raise ZeroDivisionError
