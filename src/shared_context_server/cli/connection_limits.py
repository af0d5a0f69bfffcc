"""Connection limits: how many connections a process and one address may have.

When a limit is reached, an idle connection is closed for the new one.
"""

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

MAX_DESCRIPTORS = 65_536  # this process does not ask the system for more
MAX_CONNECTIONS = 10_000  # by default: each costs about 20 KiB
MIN_CONNECTIONS = 16
RESERVED_DESCRIPTORS = 64  # for logs, listeners, the clock and temporary files
RETRY_AFTER_S = 5
CHECK_INTERVAL_S = 1.0

_log = get_logger("connections")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Maximum number of connections of a process and of one address. `proxies` are exempt from the
    limit of one address."""

    total: int = MAX_CONNECTIONS
    by_address: int = MAX_CONNECTIONS
    proxies: tuple[str, ...] = ()


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files (RLIMIT_NOFILE) to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def make_limits(settings: Settings) -> ConnectionLimits:
    """The limits from the settings, or derived from the limit of open files."""
    total = settings.max_connections or _derive_total(settings)
    by_address = settings.max_connections_per_address or max(total // 2, MIN_CONNECTIONS // 2)
    return ConnectionLimits(total, min(by_address, total), settings.trusted_proxies)


def _derive_total(settings: Settings) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    for_store = count_descriptors(settings)
    return max(MIN_CONNECTIONS, min(soft - RESERVED_DESCRIPTORS - for_store, MAX_CONNECTIONS))


class LimitedConnection(Protocol):
    """What the limiter needs of a connection."""

    address: str

    def check_timeout(self, now: float) -> None:
        """End the connection if a deadline has passed."""

    def abort(self) -> None:
        """End the connection at once, because another one needs its slot."""


class ConnectionLimiter:
    """Counts the connections of one process and enforces the limits.

    When a limit is reached, the connection that has been idle longest is closed; if none is idle,
    the one that has been sending the head of a request longest. So clients that send nothing, or
    half a request, do not keep others out.
    """

    def __init__(self, limits: ConnectionLimits, loop: asyncio.AbstractEventLoop) -> None:
        self._limits = limits
        self._loop = loop
        self._connections: set[LimitedConnection] = set()
        self._counts: Counter[str] = Counter()
        # Dictionaries, because they keep the order: the oldest first.
        self._idle: dict[LimitedConnection, None] = {}
        self._in_head: dict[LimitedConnection, None] = {}
        self._is_checking = False

    @classmethod
    def of(
        cls, state: ServerState, limits: ConnectionLimits, loop: asyncio.AbstractEventLoop
    ) -> ConnectionLimiter:
        """The limiter of this server. All its connections share it."""
        limiter = _limiters.get(state)
        if limiter is None:
            limiter = _limiters[state] = cls(limits, loop)
        return limiter

    def add(self, connection: LimitedConnection) -> SharedContextError | None:
        """Count a new connection. Return the error if it is refused."""
        network = network_of(connection.address)
        refused = self._find_refusal(network)
        if refused is not None:
            _log.warning(
                "a connection was refused", reason=refused.message, address=network, throttle=True
            )
            return refused
        self._connections.add(connection)
        self._counts[network] += 1
        self._in_head[connection] = None
        if not self._is_checking:
            self._is_checking = True
            self._loop.call_later(CHECK_INTERVAL_S, self._check_timeouts)
        return None

    def remove(self, connection: LimitedConnection) -> None:
        """Stop counting a connection. Does nothing for one that was refused."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._idle.pop(connection, None)
        self._in_head.pop(connection, None)
        network = network_of(connection.address)
        self._counts[network] -= 1
        if not self._counts[network]:
            del self._counts[network]

    def mark_idle(self, connection: LimitedConnection) -> None:
        """The connection has no request."""
        if connection in self._connections:
            self._in_head.pop(connection, None)
            self._idle[connection] = None

    def mark_in_head(self, connection: LimitedConnection) -> None:
        """The connection has begun to send the head of a request."""
        if connection in self._connections and connection not in self._in_head:
            self._idle.pop(connection, None)
            self._in_head[connection] = None

    def mark_busy(self, connection: LimitedConnection) -> None:
        """A request of the connection is being served."""
        self._idle.pop(connection, None)
        self._in_head.pop(connection, None)

    def _find_refusal(self, network: str) -> SharedContextError | None:
        is_limited = not is_loopback(network) and not is_within(network, self._limits.proxies)
        if (
            is_limited
            and self._counts[network] >= self._limits.by_address
            and not self._abort_oldest(network)
        ):
            return RateLimited(RETRY_AFTER_S, "Too many connections from this address.")
        if len(self._connections) >= self._limits.total and not self._abort_oldest(None):
            return Unavailable("Too many connections are open.", wait_s=RETRY_AFTER_S)
        return None

    def _abort_oldest(self, network: str | None) -> bool:
        """End the connection that has been idle longest, of this network or of all. Return whether
        there was one."""
        for candidates in (self._idle, self._in_head):
            for connection in candidates:
                if network is None or network_of(connection.address) == network:
                    _log.warning(
                        "a connection was closed to make room",
                        connections=len(self._connections),
                        address=network_of(connection.address),
                        throttle=True,
                    )
                    self.remove(connection)
                    connection.abort()
                    return True
        return False

    def _check_timeouts(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._connections):
            connection.check_timeout(now)
        self._is_checking = bool(self._connections)
        if self._is_checking:
            self._loop.call_later(CHECK_INTERVAL_S, self._check_timeouts)


_limiters: WeakKeyDictionary[ServerState, ConnectionLimiter] = WeakKeyDictionary()
