"""Rate limits per key, or per address for callers without a key."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from shared_context_server.auth.addresses import network_of
from shared_context_server.auth.connection import Connection
from shared_context_server.auth.keys import AUTH_DISABLED
from shared_context_server.errors import RateLimited
from shared_context_server.limit_settings import NO_RATE
from shared_context_server.models import Caller
from shared_context_server.settings import Settings

MAX_COUNTED = 50_000  # subjects in one window; all further ones share one count
_OTHERS = ("others", "")

_Subject = tuple[str, str]


class RateLimits:
    """The rate limits of one process.

    A key and all its tokens share one count, for all agents: a new agent id must not raise the limit.
    `on_failure` is called for each wrong credential, with whether its address was over the limit;
    `on_limited` with the name of each limit that is reached.
    """

    on_failure: Callable[[bool], None] | None = None
    on_limited: Callable[[str], None] | None = None

    def __init__(self, settings: Settings) -> None:
        self._requests = _Window(settings.rate_limit)
        self._tools = {name: _Window(rate) for name, rate in settings.tool_rates.items()}
        self._failures = _Window(settings.failed_auth_limit)

    @property
    def has_tool_rates(self) -> bool:
        """Whether any tool has a rate of its own, so that calls have to be counted by tool."""
        return bool(self._tools)

    def count_request(self, connection: Connection) -> None:
        """Count one request. Raises RateLimited over the limit."""
        self._count(
            "rate_limit", self._requests, _subject_of(connection.caller, connection.address)
        )

    def count_argument_request(self, caller: Caller, connection: Connection) -> None:
        """Count one request of a caller that only the argument auth_token identifies."""
        if connection.caller.is_anonymous:
            self._count("rate_limit", self._requests, _subject_of(caller, connection.address))

    def count_call(self, tool: str, caller: Caller, connection: Connection) -> None:
        """Count one call of a tool. Raises RateLimited over the tool's own limit."""
        window = self._tools.get(tool)
        if window is not None:
            subject = _subject_of(caller, connection.address)
            self._count("rate_limit_tools", window, subject, f"Too many calls of {tool}.")

    def count_failure(self, address: str) -> None:
        """Count a wrong credential. Raises RateLimited over the limit of the address.

        Valid credentials of that address still work: an attacker must not lock out others who share
        it.
        """
        is_limited = True
        try:
            if address:
                subject = ("address", network_of(address))
                self._count(
                    "failed_auth_limit", self._failures, subject, "Too many wrong credentials."
                )
            is_limited = False
        finally:
            if self.on_failure is not None:
                self.on_failure(is_limited)

    def note_limited(self, limit: str) -> None:
        """Report that a limit was reached."""
        if self.on_limited is not None:
            self.on_limited(limit)

    def _count(
        self, limit: str, window: _Window, subject: _Subject, message: str = "Too many calls."
    ) -> None:
        try:
            window.count(subject, message)
        except RateLimited:
            self.note_limited(limit)
            raise


def _subject_of(caller: Caller, address: str) -> _Subject:
    if caller.is_anonymous or caller.key_id == AUTH_DISABLED.key_id:
        return ("address", network_of(address))
    return ("key", caller.key_id)


class _Rate(NamedTuple):
    calls: int
    seconds: int


def _read_rate(text: str) -> _Rate:
    calls, _, unit = text.partition("/")
    if unit == "minute" and calls.isascii() and calls.isdecimal():  # the defaults
        return _Rate(int(calls), 60)
    from limits import parse  # noqa: PLC0415 - with what it brings it takes 2 MB; few set a rate

    item = parse(text)
    return _Rate(item.amount, item.get_expiry())


class _Window:
    """Counts in fixed windows, which start at the same time for all subjects. So counting is one
    dictionary write, and the end of a window clears the dictionary.

    The library `limits` parses the rates. Its in-memory storages are not used: at each hit they
    search all entries for expired ones (10 ms of the event loop at MAX_COUNTED entries), their
    number of entries has no limit, and they use the system clock, which can be set.
    """

    def __init__(self, rate: str) -> None:
        self._rate = None if rate == NO_RATE else _read_rate(rate)
        self._counts: dict[_Subject, int] = {}
        self._ends_at = 0.0

    def count(self, subject: _Subject, message: str) -> None:
        if self._rate is None:
            return
        now = time.monotonic()
        if now >= self._ends_at:
            self._counts.clear()
            self._ends_at = now + self._rate.seconds
        if subject not in self._counts and len(self._counts) >= MAX_COUNTED:
            subject = _OTHERS
        count = self._counts.get(subject, 0) + 1
        if count > self._rate.calls:
            raise RateLimited(max(1, math.ceil(self._ends_at - now)), message)
        self._counts[subject] = count
