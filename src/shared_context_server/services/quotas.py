"""Quotas: how much a session and an agent may have stored.

The store counts, in the transaction of each write. Here the counts are read before a write. So that this does
not cost a read for each write, a read allows a part of what is left to the writes that follow.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from cachetools import LRUCache

from shared_context_server.errors import QuotaExceeded, SharedContextError
from shared_context_server.models import Caller, Session
from shared_context_server.services.disk import BYTES_PER_MB, DiskReserve
from shared_context_server.settings import Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import Store
from shared_context_server.storage.contract import SessionGuard, Usage

MAX_ACCOUNTS = 10_000  # sessions and agents whose counts are known for a moment
KNOWN_S = 1.0  # how long a count serves: other processes write too
# So much of what is left one read allows. Up to eight processes that all read the same count cannot
# exceed the limit together.
PART = 8
AGENT_LIMITS = frozenset(
    {"max_sessions_per_agent", "max_messages_per_agent", "max_memory_per_agent", "max_mb_per_agent"}
)
BYTE_LIMITS = frozenset({"max_mb_per_session", "max_mb_per_agent"})
MEMORY_LIMITS = BYTE_LIMITS | {"max_memory_per_session", "max_memory_per_agent"}
REMOVE_EVERY_S = 1.0  # expired memory, while a quota is reached
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Growth(NamedTuple):
    """What a write adds at most."""

    sessions: int = 0
    messages: int = 0
    memory_entries: int = 0
    bytes: int = 0


Errors = tuple[SharedContextError, ...]
"""Those with which a write is refused if it adds something: QuotaExceeded, or StorageFull."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """`setting` is its name; `counted` names what is counted, for people."""

    setting: str
    maximum: float
    counted: str


_Limits = tuple[_Limit, ...]
"""The limits of one kind of account, in the order of the fields of Growth and Usage."""


class _Account:
    """What is known of one session, or of one agent.

    `allowance`: what further writes may add before the count is read again. `in_flight`: writes that
    were let through and have not ended; the next count may have them or not.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._allowance: list[float] = [0.0] * len(Growth._fields)
        self._known_until = 0.0
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def begin(self) -> None:
        self._in_flight += 1
        self._is_idle.clear()

    def end(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._is_idle.set()

    async def become_idle(self) -> None:
        """Allow no further write, and wait for those under way."""
        self._known_until = 0.0
        await self._is_idle.wait()

    def take(self, growth: Growth) -> bool:
        """Take the growth from the allowance; False if that does not suffice."""
        if time.monotonic() >= self._known_until:
            return False
        if any(more > left for more, left in zip(growth, self._allowance, strict=True)):
            return False
        self._allowance = [left - more for more, left in zip(growth, self._allowance, strict=True)]
        return True

    def renew(self, lefts: list[float], growth: Growth) -> None:
        """Set the allowance from what is left of each limit, and take the growth from it."""
        self._allowance = [
            max(0.0, left if left == math.inf else left // PART - more)
            for left, more in zip(lefts, growth, strict=True)
        ]
        self._known_until = time.monotonic() + KNOWN_S


class Quotas:
    """Lets writes through that the quotas and the disk reserve allow. One instance a process.

    In one process a limit is never exceeded. Processes that write for the same agent or session at the
    same moment may exceed it by the writes that each has under way.
    """

    def __init__(self, settings: Settings, store: Store, disk: DiskReserve) -> None:
        self.disk = disk
        self._store = store
        self._by_agent: _Limits = (
            _limit(settings, "max_sessions_per_agent", "sessions"),
            _limit(settings, "max_messages_per_agent", "messages"),
            _limit(settings, "max_memory_per_agent", "memory entries"),
            _limit(settings, "max_mb_per_agent", "bytes"),
        )
        self._by_session: _Limits = (
            _Limit("", math.inf, "sessions"),
            _limit(settings, "max_messages_per_session", "messages"),
            _limit(settings, "max_memory_per_session", "memory entries"),
            _limit(settings, "max_mb_per_session", "bytes"),
        )
        self._accounts: LRUCache[tuple[str, str], _Account] = LRUCache(MAX_ACCOUNTS)
        self._is_on = any(map(_is_set, (self._by_agent, self._by_session)))
        self._remove_at = 0.0

    def admit(
        self, caller: Caller, session_id: str | None, measure: Callable[[], Growth]
    ) -> AbstractAsyncContextManager[Errors]:
        """Return the context in which the caller may write.

        Its value are the errors of which the first is to be raised if the write turns out to add
        something: a repeated write does not, nor may one that replaces. `measure` says what it adds at
        most; it is only called if a quota is set.
        """
        shortage = self.disk.find_shortage()
        if shortage is not None:
            return nullcontext((shortage,))
        if not self._is_on:
            return _OFF
        return self._admit(caller.agent_id, session_id, measure())

    @asynccontextmanager
    async def _admit(
        self, agent_id: str, session_id: str | None, growth: Growth
    ) -> AsyncIterator[Errors]:
        # Always the agent first, so that two writes never wait for each other.
        async with self._enter("agent", agent_id, self._by_agent, growth) as of_agent:
            if session_id is None:
                yield of_agent
                return
            entering = self._enter("session", session_id, self._by_session, growth)
            async with entering as of_session:
                yield (*of_agent, *of_session)

    def _enter(
        self, kind: str, name: str, limits: _Limits, growth: Growth
    ) -> AbstractAsyncContextManager[Errors]:
        return self._enter_account(kind, name, limits, growth) if _is_set(limits) else _OFF

    @asynccontextmanager
    async def _enter_account(
        self, kind: str, name: str, limits: _Limits, growth: Growth
    ) -> AsyncIterator[Errors]:
        account = self._accounts.get((kind, name))
        if account is None:
            account = self._accounts[kind, name] = _Account()
        errors: Errors = ()
        if account.take(growth):
            account.begin()
        else:
            async with account.lock:
                if not account.take(growth):
                    await account.become_idle()
                    used = await self._measure(kind, name)
                    errors = _check(kind, limits, used, growth)
                    if any(error.limit in MEMORY_LIMITS for error in errors):
                        await self._remove_expired()
                        used = await self._measure(kind, name)
                        errors = _check(kind, limits, used, growth)
                    if not errors:
                        account.renew(_find_left(limits, used), growth)
                account.begin()
        try:
            yield errors
        finally:
            account.end()

    async def _remove_expired(self) -> None:
        """Remove the memory that has expired, which counts until then. Otherwise it is done once a minute."""
        now = time.monotonic()
        if now < self._remove_at:
            return
        self._remove_at = now + REMOVE_EVERY_S
        await self._store.maintenance.purge(
            expired_before=utc_now(), idempotency_before=_NEVER, audit_before=_NEVER
        )

    async def _measure(self, kind: str, name: str) -> Growth:
        stores = self._store
        measuring = stores.agents if kind == "agent" else stores.sessions
        usage: Usage = await measuring.measure_usage(name)
        return Growth(usage.sessions, usage.messages, usage.memory_entries, usage.bytes)


def refuse_after(guard: SessionGuard, errors: Errors) -> SessionGuard:
    """Return the guard of a write that raises the first error for whoever passes `guard`. The store
    asks it once it knows that the write is no repetition."""
    if not errors:
        return guard

    def refuse(session: Session) -> None:
        guard(session)
        raise errors[0]

    return refuse


_OFF: AbstractAsyncContextManager[Errors] = nullcontext(())


def _limit(settings: Settings, name: str, counted: str) -> _Limit:
    maximum: int | None = getattr(settings, name)
    if maximum is None:
        return _Limit(name, math.inf, counted)
    return _Limit(name, maximum * BYTES_PER_MB if counted == "bytes" else maximum, counted)


def _is_set(limits: _Limits) -> bool:
    return any(limit.maximum != math.inf for limit in limits)


def _find_left(limits: _Limits, used: Growth) -> list[float]:
    return [limit.maximum - count for limit, count in zip(limits, used, strict=True)]


def _check(kind: str, limits: _Limits, used: Growth, growth: Growth) -> Errors:
    """Return the errors for the limits that the growth would exceed."""
    return tuple(
        _make_error(kind, limit, count, more)
        for limit, count, more in zip(limits, used, growth, strict=True)
        if more and count + more > limit.maximum
    )


def _make_error(kind: str, limit: _Limit, used: int, growth: int) -> QuotaExceeded:
    """Return the error. What a session has in it is not told, since others' private data counts too."""
    maximum = int(limit.maximum)
    left = max(0, maximum - used)
    if kind == "agent":
        needed = f", and this needs {growth} more" if limit.counted == "bytes" else ""
        message = f"You have {used} {limit.counted} stored{needed}; {maximum} is the limit."
        return QuotaExceeded(message, limit=limit.setting, maximum=maximum, left=left, used=used)
    message = f"The session has no room for this: {maximum} {limit.counted} is the limit."
    return QuotaExceeded(message, limit=limit.setting, maximum=maximum, left=left)
