"""The limits on connections, by address and in all."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared_context_server.auth.addresses import is_within, network_of
from shared_context_server.cli.connection_limits import (
    ConnectionLimiter,
    ConnectionLimits,
    make_limits,
)
from shared_context_server.errors import RateLimited, Unavailable
from tests.settings import make_settings


@dataclass(eq=False)
class FakeConnection:
    address: str
    was_aborted: bool = False

    def check_timeout(self, now: float) -> None:
        pass

    def abort(self) -> None:
        self.was_aborted = True


def make_limiter(limits: ConnectionLimits) -> ConnectionLimiter:
    return ConnectionLimiter(limits, asyncio.get_running_loop())


async def test_an_address_has_a_limit_of_its_own_and_others_can_still_connect() -> None:
    limiter = make_limiter(ConnectionLimits(total=100, by_address=2))
    connections = [FakeConnection("192.0.2.1") for _ in range(3)]
    assert limiter.add(connections[0]) is limiter.add(connections[1]) is None
    for connection in connections[:2]:
        limiter.mark_busy(connection)
    assert isinstance(limiter.add(connections[2]), RateLimited)
    assert limiter.add(FakeConnection("192.0.2.2")) is None
    limiter.remove(connections[0])
    assert limiter.add(connections[2]) is None


async def test_an_address_at_its_limit_loses_its_oldest_idle_connection() -> None:
    limiter = make_limiter(ConnectionLimits(total=100, by_address=2))
    stranger, first, second = (
        FakeConnection("192.0.2.9"),
        FakeConnection("192.0.2.1"),
        FakeConnection("192.0.2.1"),
    )
    for connection in (stranger, first, second):
        assert limiter.add(connection) is None
    limiter.mark_idle(second)
    assert limiter.add(FakeConnection("192.0.2.1")) is None
    assert (stranger.was_aborted, first.was_aborted, second.was_aborted) == (
        False,
        False,
        True,
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3"])
async def test_this_machine_and_proxies_have_no_limit_but_the_total(address: str) -> None:
    limiter = make_limiter(ConnectionLimits(total=5, by_address=1, proxies=("10.0.0.0/8",)))
    connections = [FakeConnection(address) for _ in range(6)]
    for connection in connections[:5]:
        assert limiter.add(connection) is None
        limiter.mark_busy(connection)
    assert isinstance(limiter.add(connections[5]), Unavailable)


async def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("::1") == "::1"
    assert not is_within("not an address", ("10.0.0.0/8",))


async def test_closed_and_refused_connections_are_not_counted() -> None:
    limiter = make_limiter(ConnectionLimits(total=1))
    first, refused = FakeConnection("127.0.0.1"), FakeConnection("127.0.0.1")
    assert limiter.add(first) is None
    limiter.mark_busy(first)
    assert limiter.add(refused) is not None
    limiter.remove(refused)
    limiter.remove(first)
    limiter.remove(first)
    assert limiter.add(refused) is None


def test_the_limit_leaves_descriptors_for_the_store(tmp_path: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = make_limits(make_settings(tmp_path))
    assert 16 <= limits.total <= max(16, soft - 64)
    assert limits.by_address <= limits.total
    given = make_limits(make_settings(tmp_path, max_connections=100, max_connections_per_address=7))
    assert (given.total, given.by_address) == (100, 7)
