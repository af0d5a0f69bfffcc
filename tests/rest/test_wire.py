"""Answers that are made when they are asked for first."""

from __future__ import annotations

import asyncio
import threading

import httpx
from starlette.applications import Starlette
from starlette.routing import Route

from shared_context_server.rest.wire import FixedAnswer, LateAnswer


async def test_a_late_answer_is_made_once_beside_the_event_loop_even_if_the_first_who_asks_hangs_up() -> (
    None
):
    loop, is_making, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    makers: list[int] = []

    def make() -> FixedAnswer:
        makers.append(threading.get_ident())
        loop.call_soon_threadsafe(is_making.set)
        assert may_end.wait(30)
        return FixedAnswer(b'"made"')

    app = Starlette(routes=[Route("/", LateAnswer(make))])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        first = asyncio.create_task(client.get("/"))
        await asyncio.wait_for(is_making.wait(), 30)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0)
        may_end.set()
        answers = [await second, await client.get("/")]
    assert [answer.json() for answer in answers] == ["made", "made"]
    assert len(makers) == 1
    assert makers[0] != threading.get_ident()


async def test_a_late_answer_that_could_not_be_made_is_tried_again() -> None:
    tries: list[int] = []

    def make() -> FixedAnswer:
        tries.append(len(tries))
        if len(tries) == 1:
            raise OSError("no thread, no file, no memory")
        return FixedAnswer(b'"made"')

    app = Starlette(routes=[Route("/", LateAnswer(make))])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        statuses = [(await client.get("/")).status_code for _ in range(3)]
    assert statuses == [500, 200, 200]
    assert len(tries) == 2
