"""The agents of a run that wait: waiting calls, event streams and MCP subscriptions."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from prove.clients import MODERN, Agent, mcp_request
from prove.history import (
    EVENT,
    EVENTS_WAY,
    LISTENED,
    NOTIFIED,
    Call,
    JsonObject,
    Outcome,
)

WAIT_S = 10
IDLE_S = 40.0
"""A stream says every 15 seconds that it is alive."""

RECONNECT_S = 0.2


class Waiter:
    """Waits for messages of one session or of several by cursor, call after call."""

    def __init__(self, agent: Agent, session_ids: Sequence[str]) -> None:
        self._agent = agent
        self._cursors = dict.fromkeys(session_ids, 0)

    async def run(self) -> None:
        while True:
            call = await self._agent.call(
                "wait_for_messages",
                timeout_s=WAIT_S + 10,
                timeout_seconds=WAIT_S,
                limit=self._agent.chooser.choice([1, 10, 100]),
                **self._place(),
            )
            if not call.is_ok:
                await asyncio.sleep(RECONNECT_S)
            elif "session_id" in call.arguments:
                self._cursors[call.arguments["session_id"]] = call.answer["next_after_seq"]
            else:
                self._cursors |= call.answer["cursors"]

    def _place(self) -> JsonObject:
        if len(self._cursors) == 1:
            ((session_id, cursor),) = self._cursors.items()
            return {"session_id": session_id, "after_seq": cursor}
        return {"session_ids": list(self._cursors), "cursors": dict(self._cursors)}


@contextmanager
def record_stream(agent: Agent, place: JsonObject, way: str) -> Iterator[Call]:
    """Record for how long a stream is open; who opens it sets since when, else it was never open."""
    listened = agent.run.record(agent.name, LISTENED, place, way=way, server=agent.url)
    listened.invoked_at, listened.outcome = math.inf, Outcome.OK
    try:
        yield listened
    finally:
        listened.ended_at = time.monotonic()


class EventReader:
    """Reads GET /events, of one session or of all, and resumes by the last id."""

    def __init__(self, agent: Agent, session_id: str | None) -> None:
        self._agent = agent
        self._session_id = session_id
        self._streams = 0
        self.last_id = 0

    async def run(self) -> None:
        while True:
            with suppress(httpx.TransportError, json.JSONDecodeError):
                await self._read()
            self._agent.move()
            await asyncio.sleep(RECONNECT_S)

    async def _read(self) -> None:
        self._streams += 1
        params = {} if self._session_id is None else {"session_id": self._session_id}
        place = {
            "stream": f"{self._agent.name}/{self._streams}",
            "session_id": self._session_id,
            "after": self.last_id,
        }
        headers = {"Last-Event-ID": str(self.last_id)}
        opening = self._agent.stream(
            "GET", "/events", idle_s=IDLE_S, params=params, headers=headers
        )
        run, name, url = self._agent.run, self._agent.name, self._agent.url
        with record_stream(self._agent, place, EVENTS_WAY) as listened:
            async with opening as response:
                if response.status_code != 200:
                    return
                listened.invoked_at = time.monotonic()
                async for event, data, event_id in _events(response):
                    if event == "message":
                        call = run.record(name, EVENT, place, way=EVENTS_WAY, server=url)
                        call.ended_at, call.invoked_at = call.invoked_at, listened.invoked_at
                        call.outcome, call.answer = Outcome.OK, data
                        self.last_id = event_id


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any], int]]:
    """Yield each event's kind, data and id; comments come as an event without a name."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        data = json.loads(fields.get("data", "{}"))
        yield fields.get("event", ""), data, int(fields.get("id", 0))
        fields = {}


class Subscriber:
    """Listens to a session's messages over MCP, and reads them when it is told."""

    def __init__(self, agent: Agent, session_id: str) -> None:
        self._agent = agent
        self._session_id = session_id
        self._streams = 0
        self.cursor = 0

    async def run(self) -> None:
        while True:
            with suppress(httpx.TransportError, json.JSONDecodeError):
                await self._listen()
            self._agent.move()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        self._streams += 1
        place = {
            "stream": f"{self._agent.name}/{self._streams}",
            "session_id": self._session_id,
        }
        uri = f"session://{self._session_id}/messages"
        params = {"notifications": {"resourceSubscriptions": [uri]}}
        headers, body = mcp_request("subscriptions/listen", params, MODERN)
        stream = self._agent.stream("POST", "/mcp", idle_s=IDLE_S, headers=headers, json=body)
        with record_stream(self._agent, place, f"MCP {MODERN}") as listened:
            async with stream as response:
                if response.status_code != 200:
                    return
                async for _, message, _ in _events(response):
                    if message.get("method") == "notifications/subscriptions/acknowledged":
                        listened.invoked_at = time.monotonic()
                    if message.get("method") == "notifications/resources/updated":
                        way = listened.way
                        told = self._agent.run.record(self._agent.name, NOTIFIED, place, way=way)
                        told.ended_at, told.outcome = told.invoked_at, Outcome.OK
                        await self._read_on()

    async def _read_on(self) -> None:
        page = await self._agent.call(
            "get_messages", session_id=self._session_id, after_seq=self.cursor, limit=500
        )
        if page.is_ok:
            self.cursor = page.answer["next_after_seq"]
