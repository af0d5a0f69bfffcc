"""Which connections a process keeps: a cap on all, a cap by address, and who makes room."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from uvicorn.server import ServerState

from shared_context_server.auth.addresses import is_loopback, is_within, network_of
from shared_context_server.errors import RateLimited, SharedContextError, Unavailable
from shared_context_server.observability.logs import get_logger
from shared_context_server.settings import Settings
from shared_context_server.storage import count_descriptors

MOST_DESCRIPTORS = 65_536  # more are not asked of the system
MOST_CONNECTIONS = 10_000  # by default: each costs some 20 KiB
FEWEST_CONNECTIONS = 16
RESERVED_DESCRIPTORS = 64  # for logs, listeners, the clock, files that are opened for a moment
RETRY_AFTER_S = 5
SWEEP_S = 1.0

_log = get_logger("connections")


@dataclass(frozen=True, slots=True)
class Caps:
    """Most connections of a process, and of one address; `proxies` have no cap of their own."""

    total: int = MOST_CONNECTIONS
    by_address: int = MOST_CONNECTIONS
    proxies: tuple[str, ...] = ()


def raise_descriptor_limit() -> None:
    """Let this process open as many files as the system allows it (RLIMIT_NOFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def make_caps(settings: Settings) -> Caps:
    """The caps as set, or as the limit of open files and a reserve for the store leave room."""
    total = settings.max_connections or _derive_total(settings)
    by_address = settings.max_connections_per_address or max(total // 2, FEWEST_CONNECTIONS // 2)
    return Caps(total, min(by_address, total), settings.trusted_proxies)


def _derive_total(settings: Settings) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    for_store = count_descriptors(settings)
    return max(FEWEST_CONNECTIONS, min(soft - RESERVED_DESCRIPTORS - for_store, MOST_CONNECTIONS))


class Member(Protocol):
    """A connection as the door sees it."""

    address: str

    def check_time(self, now: float) -> None:
        """End it if its client has let a deadline pass."""

    def make_room(self) -> None:
        """End it for another's sake."""


class Door:
    """The connections of one process.

    When there are as many as may be, one that serves nobody makes room: the one that has been idle
    for longest, else the one that has been sending the head of a request for longest. So whoever
    sends nothing, or half a request, keeps nobody out.
    """

    def __init__(self, caps: Caps, loop: asyncio.AbstractEventLoop) -> None:
        self._caps = caps
        self._loop = loop
        self._members: set[Member] = set()
        self._counts: Counter[str] = Counter()
        # Ordered by when they came to be so: dictionaries for their order.
        self._idle: dict[Member, None] = {}
        self._beginning: dict[Member, None] = {}
        self._is_sweeping = False

    @classmethod
    def of(cls, state: ServerState, caps: Caps, loop: asyncio.AbstractEventLoop) -> Door:
        """The door of this server; all its connections share it."""
        door = _doors.get(state)
        if door is None:
            door = _doors[state] = cls(caps, loop)
        return door

    def enter(self, member: Member) -> SharedContextError | None:
        """Count the connection, or say why it is refused."""
        where = network_of(member.address)
        refused = self._find_room(where)
        if refused is not None:
            _log.warning(
                "a connection was refused", reason=refused.message, address=where, throttle=True
            )
            return refused
        self._members.add(member)
        self._counts[where] += 1
        self._beginning[member] = None
        if not self._is_sweeping:
            self._is_sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)
        return None

    def leave(self, member: Member) -> None:
        """Forget the connection; no error for one that was refused."""
        if member not in self._members:
            return
        self._members.discard(member)
        self._idle.pop(member, None)
        self._beginning.pop(member, None)
        where = network_of(member.address)
        self._counts[where] -= 1
        if not self._counts[where]:
            del self._counts[where]

    def note_idle(self, member: Member) -> None:
        """Nothing is under way on it."""
        if member in self._members:
            self._beginning.pop(member, None)
            self._idle[member] = None

    def note_beginning(self, member: Member) -> None:
        """A request has begun to arrive."""
        if member in self._members and member not in self._beginning:
            self._idle.pop(member, None)
            self._beginning[member] = None

    def note_busy(self, member: Member) -> None:
        """A request is being served."""
        self._idle.pop(member, None)
        self._beginning.pop(member, None)

    def _find_room(self, where: str) -> SharedContextError | None:
        has_cap = not is_loopback(where) and not is_within(where, self._caps.proxies)
        if (
            has_cap
            and self._counts[where] >= self._caps.by_address
            and not self._make_room_of(where)
        ):
            return RateLimited(RETRY_AFTER_S, "Too many connections from this address.")
        if len(self._members) >= self._caps.total and not self._make_room_of(None):
            return Unavailable("Too many connections are open.", wait_s=RETRY_AFTER_S)
        return None

    def _make_room_of(self, where: str | None) -> bool:
        """End the connection that has waited for longest, of that address or of all."""
        for waiting in (self._idle, self._beginning):
            for member in waiting:
                if where is None or network_of(member.address) == where:
                    _log.warning(
                        "a connection was closed to make room",
                        connections=len(self._members),
                        address=network_of(member.address),
                        throttle=True,
                    )
                    self.leave(member)
                    member.make_room()
                    return True
        return False

    def _sweep(self) -> None:
        now = self._loop.time()
        for member in tuple(self._members):
            member.check_time(now)
        self._is_sweeping = bool(self._members)
        if self._is_sweeping:
            self._loop.call_later(SWEEP_S, self._sweep)


_doors: WeakKeyDictionary[ServerState, Door] = WeakKeyDictionary()
