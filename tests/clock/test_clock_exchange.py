import time

import pytest

from shared_context_server.clock.errors import (
    OptionError,
    TimeServerError,
    TimeServerRefusedError,
)
from shared_context_server.clock.timesync import exchange
from shared_context_server.clock.timesync.exchange import (
    ServerAddress,
    parse_server,
    query_server,
)

NS = 1_000_000_000


def ask(server):
    return query_server(ServerAddress("127.0.0.1", server.port))


@pytest.mark.parametrize("offset_s", [0.0, 0.05, -3.0, 86_400.0])
def test_a_sample_holds_the_servers_time_within_its_distance(start_ntp_server, offset_s):
    sample = ask(start_ntp_server(offset_s=offset_s))
    monotonic_ns = time.monotonic_ns()
    truth_ns = time.time_ns() + int(offset_s * NS) - monotonic_ns
    assert abs(sample.base_ns - truth_ns) <= sample.distance_ns
    assert sample.monotonic_ns <= monotonic_ns


def test_the_distance_is_half_the_root_delay_and_the_dispersion_and_little_more(start_ntp_server):
    sample = ask(start_ntp_server(root_delay_s=0.1, root_dispersion_s=0.03))
    assert 0.0799e9 <= sample.distance_ns <= 0.5e9


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"leap": 3}, "not synchronized"),
        ({"stratum": 16}, "not synchronized"),
        ({"mode": 5}, "mode 5"),
        ({"root_dispersion_s": 3.0}, "root distance"),
        ({"origin_shift_s": -1}, "not to this question"),
        ({"origin_shift_s": 1}, "not to this question"),
    ],
)
def test_an_answer_that_cannot_be_relied_on_is_refused(start_ntp_server, fault, message):
    with pytest.raises(TimeServerError, match=message):
        ask(start_ntp_server(**fault))


def test_a_server_that_wants_no_questions_says_so(start_ntp_server):
    with pytest.raises(TimeServerRefusedError) as caught:
        ask(start_ntp_server(stratum=0, leap=3, reference=b"RATE"))
    assert caught.value.code == "RATE"


def test_a_silent_server_is_an_error_after_a_bounded_wait(start_ntp_server, monkeypatch):
    monkeypatch.setattr(exchange, "TIMEOUT_S", 0.2)
    with pytest.raises(TimeServerError, match="No response"):
        ask(start_ntp_server(is_silent=True))


def test_a_name_that_does_not_resolve_is_an_error():
    with pytest.raises(TimeServerError, match=r"x\.invalid:123"):
        query_server(ServerAddress("x.invalid", 123))


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("pool.ntp.org", "pool.ntp.org", 123),
        ("10.0.0.1:1123", "10.0.0.1", 1123),
        ("::1", "::1", 123),
        ("[::1]", "::1", 123),
        ("[fe80::1]:1123", "fe80::1", 1123),
    ],
)
def test_servers_are_written_as_host_and_port(text, host, port):
    assert parse_server(text) == ServerAddress(host, port)
    assert parse_server(str(parse_server(text))) == ServerAddress(host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":123", "host:", "host:0", "host:65536", "host:x", "[::1", "[::1]x", "a b", "a:\u0661"],
)
def test_what_is_not_a_server_is_refused(text):
    with pytest.raises(OptionError, match="--ntp"):
        parse_server(text)
