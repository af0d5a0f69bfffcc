"""How many requests a caller may make: by the key behind the credential, by address without one."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from shared_context_server.auth.addresses import network_of
from shared_context_server.auth.connection import Connection
from shared_context_server.auth.keys import AUTH_DISABLED
from shared_context_server.errors import RateLimited
from shared_context_server.models import Caller
from shared_context_server.settings import Settings

MAX_COUNTED = 50_000  # names in one window; whoever comes after them shares one count
_OTHERS = ("others", "")

_Name = tuple[str, str]


class RateLimits:
    """The limits of one process.

    A key and all tokens of it are one caller, whatever agent they name: a name costs nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self._requests = _Window(settings.rate_limit)
        self._failures = _Window(settings.failed_auth_limit)

    def spend(self, connection: Connection) -> None:
        """Count one request; raise RateLimited when there were too many."""
        self._requests.spend(_name_of(connection.caller, connection.address))

    def spend_argument(self, caller: Caller, connection: Connection) -> None:
        """Count one request of a caller whom only the argument auth_token names."""
        if connection.caller.is_anonymous:
            self._requests.spend(_name_of(caller, connection.address))

    def fail(self, address: str) -> None:
        """Count a wrong credential; raise RateLimited when the address has presented too many.

        A valid credential is served all the same: who shares an address with an attacker is not
        locked out.
        """
        if address:
            self._failures.spend(("address", network_of(address)), "Too many wrong credentials.")


def _name_of(caller: Caller, address: str) -> _Name:
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
    """Counts by name in fixed windows. The windows of all begin together: counting is a dictionary
    write, and the counts of a window go with it.

    `limits` reads the rates, and its storages in memory are not used: they walk all names at each
    hit to find the expired ones (10 ms of the event loop at MAX_COUNTED names), hold any number of
    names, and tell the time by a clock that can be set.
    """

    def __init__(self, rate: str) -> None:
        self._rate = None if rate == "off" else _read_rate(rate)
        self._counts: dict[_Name, int] = {}
        self._ends_at = 0.0

    def spend(self, name: _Name, message: str = "Too many calls.") -> None:
        if self._rate is None:
            return
        now = time.monotonic()
        if now >= self._ends_at:
            self._counts.clear()
            self._ends_at = now + self._rate.seconds
        if name not in self._counts and len(self._counts) >= MAX_COUNTED:
            name = _OTHERS
        count = self._counts.get(name, 0) + 1
        if count > self._rate.calls:
            raise RateLimited(max(1, math.ceil(self._ends_at - now)), message)
        self._counts[name] = count
