"""The caps on connections, by address and in all."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared_context_server.auth.addresses import is_within, network_of
from shared_context_server.cli.admission import Caps, Door, make_caps
from shared_context_server.errors import RateLimited, Unavailable
from tests.settings import make_settings


@dataclass(eq=False)
class Visitor:
    address: str
    was_sent_away: bool = False

    def check_time(self, now: float) -> None:
        pass

    def make_room(self) -> None:
        self.was_sent_away = True


def open_door(caps: Caps) -> Door:
    return Door(caps, asyncio.get_running_loop())


async def test_an_address_has_a_cap_of_its_own_and_others_still_come_in() -> None:
    door = open_door(Caps(total=100, by_address=2))
    visitors = [Visitor("192.0.2.1") for _ in range(3)]
    assert door.enter(visitors[0]) is door.enter(visitors[1]) is None
    for visitor in visitors[:2]:
        door.note_busy(visitor)
    assert isinstance(door.enter(visitors[2]), RateLimited)
    assert door.enter(Visitor("192.0.2.2")) is None
    door.leave(visitors[0])
    assert door.enter(visitors[2]) is None


async def test_an_address_at_its_cap_makes_room_among_its_own() -> None:
    door = open_door(Caps(total=100, by_address=2))
    stranger, first, second = Visitor("192.0.2.9"), Visitor("192.0.2.1"), Visitor("192.0.2.1")
    for visitor in (stranger, first, second):
        assert door.enter(visitor) is None
    door.note_idle(second)
    assert door.enter(Visitor("192.0.2.1")) is None
    assert (stranger.was_sent_away, first.was_sent_away, second.was_sent_away) == (
        False,
        False,
        True,
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3"])
async def test_this_machine_and_proxies_have_no_cap_but_that_of_all(address: str) -> None:
    door = open_door(Caps(total=5, by_address=1, proxies=("10.0.0.0/8",)))
    visitors = [Visitor(address) for _ in range(6)]
    for visitor in visitors[:5]:
        assert door.enter(visitor) is None
        door.note_busy(visitor)
    assert isinstance(door.enter(visitors[5]), Unavailable)


async def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("::1") == "::1"
    assert not is_within("not an address", ("10.0.0.0/8",))


async def test_who_left_or_was_refused_is_forgotten() -> None:
    door = open_door(Caps(total=1))
    first, refused = Visitor("127.0.0.1"), Visitor("127.0.0.1")
    assert door.enter(first) is None
    door.note_busy(first)
    assert door.enter(refused) is not None
    door.leave(refused)
    door.leave(first)
    door.leave(first)
    assert door.enter(refused) is None


def test_the_cap_leaves_descriptors_for_the_store(tmp_path: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    caps = make_caps(make_settings(tmp_path))
    assert 16 <= caps.total <= max(16, soft - 64)
    assert caps.by_address <= caps.total
    given = make_caps(make_settings(tmp_path, max_connections=100, max_connections_per_address=7))
    assert (given.total, given.by_address) == (100, 7)
