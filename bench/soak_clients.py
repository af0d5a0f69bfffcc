"""Agents and waiters that keep at it while replicas and their database fail, and what they saw."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.keys import API_KEY

RETRY_PAUSE_S = 0.1  # shorter than Retry-After asks for, to see when a fault ends
TURN = 10  # calls of an agent: one counts, one works under a lease, the others write
LEASES = 3
REPLICAS = 3
LEASE_TTL_S = 5
PRIVATE_EVERY = 10  # of an agent's messages one is for one waiter only
REQUEST_TIMEOUT_S = 40.0
WAIT_S = 20


@dataclass(frozen=True)
class Written:
    """An acknowledged message: where, when it was first sent and answered, by which replica."""

    session_id: str
    seq: int
    sent_at: float
    answered_at: float
    replica: int
    tries: int


@dataclass
class Record:
    """What all clients saw. Times are of time.monotonic()."""

    written: dict[str, Written] = field(default_factory=dict)
    increments: int = 0
    holders: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    leases_lost: int = 0
    errors: list[tuple[float, bool, str]] = field(default_factory=list)  # is_waiter, kind
    unexpected: Counter[str] = field(default_factory=Counter)


class Caller:
    """One agent's connection to the replicas: on an error it goes to the next one, or stays."""

    def __init__(
        self, record: Record, clients: list[httpx.AsyncClient], home: int, agent_id: str
    ) -> None:
        self.agent_id = agent_id
        self.replica = home
        self.tries = 0
        self._record = record
        self._clients = clients
        self._moves = not agent_id.startswith("waiter")

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any] | None:
        """The answer, as soon as there is one; None if it is a refusal, LEASE_LOST."""
        for self.tries in itertools.count(1):
            try:
                answer = await self._clients[self.replica].post(
                    f"/mcp/tool/{tool}",
                    json=arguments,
                    headers={"X-API-Key": API_KEY, "X-Agent-ID": self.agent_id},
                )
            except httpx.TransportError as exc:
                kind = type(exc).__name__
            else:
                body: dict[str, Any] = answer.json()
                if answer.status_code == 200:
                    return body
                kind = f"{answer.status_code} {body['code']}"
                if body["code"] == "LEASE_LOST":
                    self._record.leases_lost += 1
                    return None
                if not (answer.status_code == 503 and "retry-after" in answer.headers):
                    self._record.unexpected[kind] += 1
            self._record.errors.append((time.monotonic(), not self._moves, kind))
            if self._moves:
                self.replica = (self.replica + 1) % len(self._clients)
            await asyncio.sleep(RETRY_PAUSE_S)
        raise AssertionError("it never gives up")


class Agent:
    """Writes, counts and works under leases, each call with an idempotency key, until told to end."""

    def __init__(
        self, caller: Caller, record: Record, sessions: list[str], number: int, pause_s: float
    ) -> None:
        self._caller = caller
        self._record = record
        self._sessions = sessions
        self._number = number
        self._pause_s = pause_s
        self._contents = (f"{caller.agent_id}/{count}" for count in itertools.count())
        self.is_over = False

    async def run(self) -> None:
        for turn in itertools.count(self._number):
            if self.is_over:
                return
            if turn % TURN == 0:
                await self._count()
            elif turn % TURN == 1:
                await self._work_under_lease(turn)
            else:
                await self._write(self._sessions[turn % len(self._sessions)], turn)
            await asyncio.sleep(self._pause_s)

    async def _write(self, session_id: str, turn: int, **arguments: Any) -> None:
        content = next(self._contents)
        if turn % PRIVATE_EVERY == 2:
            place = self._sessions.index(session_id)
            recipient = waiter_name(turn % REPLICAS, place)
            arguments |= {"visibility": "private", "recipients": [recipient]}
        sent_at, replica = time.monotonic(), self._caller.replica
        added = await self._caller.call(
            "add_message",
            session_id=session_id,
            content=content,
            idempotency_key=content,
            **arguments,
        )
        if added is not None:
            self._record.written[content] = Written(
                session_id,
                added["seq"],
                sent_at,
                time.monotonic(),
                replica,
                self._caller.tries,
            )

    async def _count(self) -> None:
        await self._caller.call(
            "set_memory",
            key="counter",
            session_id=self._sessions[0],
            scope="shared",
            mode="increment",
            value=1,
            idempotency_key=f"count {next(self._contents)}",
        )
        self._record.increments += 1

    async def _work_under_lease(self, turn: int) -> None:
        name = f"lease-{turn // TURN % LEASES}"
        session_id = self._sessions[0]
        lease = await self._caller.call(
            "acquire_lease", name=name, session_id=session_id, ttl_seconds=LEASE_TTL_S
        )
        if lease is None or not lease["acquired"]:
            return
        token: int = lease["fencing_token"]
        self._record.holders.setdefault((name, token), set()).add(self._caller.agent_id)
        fenced = {"lease": name, "fencing_token": token}
        for _ in range(2):
            await self._write(session_id, 0, metadata={"fenced": fenced}, **fenced)
        await self._caller.call(
            "release_lease", name=name, session_id=session_id, fencing_token=token
        )


def waiter_name(replica: int, place: int) -> str:
    return f"waiter-{replica}-{place}"


class Waiter:
    """Follows one session by cursor through one replica, whatever becomes of it."""

    def __init__(self, caller: Caller, session_id: str) -> None:
        self.session_id = session_id
        self.agent_id = caller.agent_id
        self.replica = caller.replica
        self.seen: list[tuple[int, str, float]] = []  # seq, content, when
        self._caller = caller
        self._more = asyncio.Event()

    async def run(self) -> None:
        after_seq = 0
        while True:
            answer = await self._caller.call(
                "wait_for_messages",
                session_id=self.session_id,
                after_seq=after_seq,
                timeout_seconds=WAIT_S,
                limit=1000,
            )
            assert answer is not None
            now = time.monotonic()
            self.seen += [(m["seq"], m["content"], now) for m in answer["messages"]]
            after_seq = answer["next_after_seq"]
            self._more.set()

    async def wait_until_seen(self, count: int, timeout_s: float) -> None:
        """Return when it has seen so many, or the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.seen) < count:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return

    def wakes(self, written: dict[str, Written]) -> Iterator[tuple[Written, float]]:
        """Messages that another replica took at the first try, and when they were here."""
        for _seq, content, at in self.seen:
            message = written.get(content)
            if message is not None and message.tries == 1 and message.replica != self.replica:
                yield message, at
