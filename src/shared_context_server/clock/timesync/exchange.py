"""Queries one NTP server and checks its answer."""

from dataclasses import dataclass
from typing import Protocol

import ntplib  # type: ignore[import-untyped]

from shared_context_server.clock.errors import OptionError, TimeServerError, TimeServerRefusedError
from shared_context_server.clock.timesync.intersection import Sample, find_drift
from shared_context_server.clock.timesync.timekeeper import NS, read_clock_pair

DEFAULT_PORT = 123
TIMEOUT_S = 3.0
MAX_DISTANCE_S = 1.5
"""ntpd's MAXDIST: an answer with a larger root distance is not used."""
LOCAL_RESOLUTION_NS = 1_000
"""ntplib has seconds since 1900 in a float, with a resolution of 477 ns, and uses two of them."""
CLOCK_SET_NS = 500_000
LEAP_UNSYNCHRONIZED = 3
MODE_SERVER = 4
MAX_STRATUM = 15


@dataclass(frozen=True, slots=True)
class ServerAddress:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Answer(Protocol):
    """The attributes of ntplib.NTPStats. Times are seconds since 1970, delays are seconds."""

    leap: int
    mode: int
    stratum: int
    precision: int
    ref_id: int
    root_delay: float
    root_dispersion: float
    orig_time: float
    tx_timestamp: float
    dest_time: float
    offset: float
    delay: float


def parse_server(text: str) -> ServerAddress:
    """Parse HOST, HOST:PORT, an IPv6 address, or [IPv6]:PORT. Raises OptionError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        is_well_formed = bool(bracket) and (not rest or rest.startswith(":"))
        port = rest[1:]
    elif text.count(":") > 1:
        host, port, is_well_formed = text, "", True
    else:
        host, colon, port = text.partition(":")
        is_well_formed = not colon or bool(port)
    if not host or not is_well_formed or any(c.isspace() for c in host):
        raise OptionError("--ntp", f"{text!r} is not HOST[:PORT] or 'kernel'")
    if not port:
        return ServerAddress(host, DEFAULT_PORT)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise OptionError("--ntp", f"{port!r} in {text!r} is not a port")
    return ServerAddress(host, int(port))


def query_server(server: ServerAddress) -> Sample:
    """Send one query. Blocks for the name lookup and up to 3 s for the answer.

    Raises TimeServerRefusedError if the server refuses service, TimeServerError if there is no
    answer or an invalid one.
    """
    name = str(server)
    realtime_before_ns, monotonic_before_ns, _ = read_clock_pair()
    try:
        answer: _Answer = ntplib.NTPClient().request(
            server.host, version=4, port=server.port, timeout=TIMEOUT_S
        )
    except (ntplib.NTPException, OSError) as exc:
        raise TimeServerError(name, str(exc)) from exc
    realtime_ns, monotonic_ns, _ = read_clock_pair()
    elapsed_ns = monotonic_ns - monotonic_before_ns
    was_set_by_ns = (realtime_ns - realtime_before_ns) - elapsed_ns
    if abs(was_set_by_ns) > CLOCK_SET_NS + find_drift(elapsed_ns) * 10:
        raise TimeServerError(name, "the system clock was set while waiting for the answer")
    _check_origin(answer, name, realtime_before_ns, realtime_ns)
    _check_answer(answer, name)
    arrived_ns = monotonic_ns - (realtime_ns - round(answer.dest_time * NS))
    true_ns = round((answer.dest_time + answer.offset) * NS)
    return Sample(name, true_ns - arrived_ns, _find_distance(answer, name), arrived_ns)


def _check_origin(answer: _Answer, name: str, sent_after_ns: int, sent_before_ns: int) -> None:
    """Check that the answer repeats the time of our query. ntplib takes any packet from the
    server's address, also the answer to an earlier query."""
    origin_ns = answer.orig_time * NS
    if not sent_after_ns - LOCAL_RESOLUTION_NS <= origin_ns <= sent_before_ns:
        raise TimeServerError(name, "the answer is not to this question")


def _check_answer(answer: _Answer, name: str) -> None:
    if answer.mode != MODE_SERVER:
        raise TimeServerError(
            name, f"the answer has mode {answer.mode}, not the server mode {MODE_SERVER}"
        )
    if answer.stratum == 0:
        code = answer.ref_id.to_bytes(4, "big").decode("ascii", "replace")
        raise TimeServerRefusedError(name, code.strip("\0 "))
    if answer.leap == LEAP_UNSYNCHRONIZED or answer.stratum > MAX_STRATUM:
        raise TimeServerError(name, "the server itself is not synchronized")
    if answer.tx_timestamp == 0:
        raise TimeServerError(name, "the answer contains no time")


def _find_distance(answer: _Answer, name: str) -> int:
    """The root distance in ns at the arrival of the answer, as in RFC 5905, section 11.1."""
    # A precision of a second or more (2**0) means that the server left the field empty.
    precision_s = 2.0**answer.precision if answer.precision < 0 else 0.0
    delay_s = max(answer.delay, 0.0)
    distance_s = answer.root_dispersion + (answer.root_delay + delay_s) / 2 + precision_s
    if distance_s > MAX_DISTANCE_S:
        raise TimeServerError(name, f"the root distance is {distance_s:.3f} s")
    return round(distance_s * NS) + find_drift(round(delay_s * NS)) + LOCAL_RESOLUTION_NS
