"""Time from NTP servers, from the wire to the reader.

The honest servers' time is the truth, and mostly not the machine's: its own clock is the wrong one.
"""

import math
import re
import time

import pytest

from shared_context_server.clock import ClockReader
from shared_context_server.clock.timesync.exchange import ServerAddress
from shared_context_server.clock.timesync.servers import NtpTime, read_slept_ns

NS = 1_000_000_000


@pytest.fixture
def follow(prefix, start_daemon, wait_until):
    """Start a daemon that follows these servers; its reader, once it is synchronized."""

    def start(*servers, extra=()):
        arguments = [word for server in servers for word in ("--ntp", server.address)]
        start.daemon = start_daemon("--source", "none", "--ntp-interval", "0.2", *arguments, *extra)
        reader = ClockReader(prefix)
        wait_until(lambda: reader.now().synchronized)
        return reader

    return start


def assert_holds(reading, offset_s, before_s, after_s):
    """The interval of the reading holds the truth of the moment it was taken."""
    assert reading.earliest <= after_s + offset_s
    assert reading.latest >= before_s + offset_s


def read_and_check(reader, offset_s):
    before_s = time.time()
    reading = reader.now()
    assert_holds(reading, offset_s, before_s, time.time())
    return reading


def test_a_far_offset_is_stepped_and_the_bound_holds_the_truth(follow, start_ntp_server):
    reader = follow(start_ntp_server(offset_s=30.0))
    for _ in range(100):
        reading = read_and_check(reader, 30.0)
    assert abs(reading.time - time.time() - 30) < 0.25
    assert reading.latest - reading.earliest < 0.5
    record = reader.read()
    assert abs(record.offset_s - 30) < 0.1
    assert abs(record.last_sync_s - reading.time) < 10
    assert re.search(r"stepped by \+(29\.9|30\.0)", follow.daemon.errors)


def test_a_near_offset_is_slewed_in_and_the_bound_holds_the_truth_all_the_while(
    follow, start_ntp_server, wait_until
):
    offset_s = 0.03
    reader = follow(start_ntp_server(offset_s=offset_s))
    assert reader.read().offset_s < offset_s
    last = reader.now()
    while reader.read().offset_s < offset_s - 0.005:
        reading = read_and_check(reader, offset_s)
        # A tick's step of slewing may take back what a reader extrapolated, never more.
        assert reading.time - last.time > -0.001
        last = reading
    assert "stepped" not in follow.daemon.errors


def test_a_liar_among_three_is_outvoted(follow, start_ntp_server, wait_until):
    honest = [start_ntp_server(offset_s=5.0), start_ntp_server(offset_s=5.0)]
    liar = start_ntp_server(offset_s=-1000.0, root_delay_s=0.0, root_dispersion_s=0.0)
    reader = follow(liar, *honest)
    wait_until(lambda: liar.answers >= 3 and f"outvoted: {liar.address}" in follow.daemon.errors)
    for _ in range(50):
        read_and_check(reader, 5.0)


def test_a_server_that_begins_to_lie_is_outvoted(follow, start_ntp_server, wait_until):
    servers = [start_ntp_server(offset_s=5.0) for _ in range(3)]
    reader = follow(*servers)
    servers[0].offset_s = 6.0
    wait_until(lambda: f"outvoted: {servers[0].address}" in follow.daemon.errors)
    read_and_check(reader, 5.0)


def test_the_server_with_the_smallest_root_distance_is_followed(
    follow, start_ntp_server, wait_until
):
    poor = [start_ntp_server(root_dispersion_s=0.5), start_ntp_server(root_dispersion_s=0.4)]
    good = start_ntp_server(root_dispersion_s=0.001)
    reader = follow(*poor, good)
    wait_until(lambda: f"following {good.address}" in follow.daemon.errors)
    wait_until(lambda: reader.read().error_bound_s < 0.2)
    read_and_check(reader, 0.0)


def test_a_server_that_does_not_answer_is_done_without(follow, start_ntp_server):
    dead = start_ntp_server(is_silent=True)
    reader = follow(start_ntp_server(offset_s=5.0), dead)
    read_and_check(reader, 5.0)


def test_losing_the_servers_widens_the_bound_and_then_clears_synchronized(
    follow, start_ntp_server, wait_until
):
    server = start_ntp_server(offset_s=5.0)
    reader = follow(server, extra=("--ntp-hold", "1.5"))
    wait_until(lambda: reader.now().time - reader.read().last_sync_s < 1)
    server.is_silent = True
    first = read_and_check(reader, 5.0)
    wait_until(lambda: not reader.now().synchronized)
    second = read_and_check(reader, 5.0)
    assert second.latest - second.earliest > first.latest - first.earliest
    assert not second.stale
    assert second.time - reader.read().last_sync_s >= 1.5
    server.is_silent = False
    wait_until(lambda: reader.now().synchronized)


def test_the_bound_is_unknown_until_a_server_has_answered(prefix, start_daemon, start_ntp_server):
    silent = start_ntp_server(is_silent=True)
    start_daemon("--source", "none", "--ntp", silent.address)
    with ClockReader(prefix) as reader:
        reading, record = reader.now(), reader.read()
    assert not reading.synchronized
    assert reading.earliest is None
    assert record.error_bound_s == math.inf
    assert record.last_sync_s == 0
    assert abs(reading.time - time.time()) < 5


def test_a_daemon_waiting_for_a_silent_server_still_stops_at_once(
    start_daemon, start_ntp_server, shared_files
):
    daemon = start_daemon("--source", "none", "--ntp", start_ntp_server(is_silent=True).address)
    started_s = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started_s < 2.5  # an answer is waited for 3 s
    assert shared_files() == []


def open_ntp_time(*servers, read_slept=read_slept_ns):
    addresses = [ServerAddress("127.0.0.1", server.port) for server in servers]
    return NtpTime(addresses, 0.05, 3600, read_slept)


def test_after_the_machine_slept_the_time_is_made_up_and_the_bound_unknown(
    start_ntp_server, wait_until
):
    """A test cannot send the machine to sleep; it tells the clock that it slept 600 s."""
    slept_ns = 0
    server = start_ntp_server()
    keeper = open_ntp_time(server, read_slept=lambda: slept_ns)
    keeper.start()
    wait_until(lambda: keeper.tick().is_synchronized and server.answers > 4)
    server.is_silent = True
    before = keeper.tick()
    slept_ns = 600 * NS
    after = keeper.tick()
    assert after.time_s - before.time_s == pytest.approx(600, abs=1)
    assert after.error_bound_s == math.inf
    assert not after.is_synchronized
    server.offset_s = 600.0
    server.is_silent = False
    wait_until(lambda: keeper.tick().is_synchronized)
    keeper.stop()


@pytest.mark.parametrize("code, goes_on", [(b"DENY", False), (b"RSTR", False), (b"RATE", True)])
def test_a_server_that_refuses_is_asked_more_slowly_or_no_more(
    start_ntp_server, wait_until, code, goes_on
):
    server = start_ntp_server(stratum=0, leap=3, reference=code)
    witness = start_ntp_server()
    keeper = open_ntp_time(server, witness)
    keeper.start()
    wait_until(lambda: server.answers >= 1 and witness.answers >= 10)
    keeper.stop()
    if goes_on:
        assert 1 < server.answers < witness.answers
    else:
        assert server.answers == 1


def test_setting_the_system_clock_does_not_move_the_time(
    prefix, start_daemon, start_ntp_server, wait_until, make_own_clock
):
    server = start_ntp_server()
    own_clock = make_own_clock()
    start_daemon(
        *("--source", "none", "--ntp", server.address, "--ntp-interval", "1"),
        environment=own_clock.environment,
    )
    with ClockReader(prefix) as reader:
        wait_until(lambda: reader.now().synchronized)
        own_clock.set_ahead(100)
        wait_until(lambda: reader.read().offset_s < -99)
        answers = server.answers
        while server.answers < answers + 2:
            read_and_check(reader, 0.0)
        assert reader.now().synchronized
