"""How a client behaves, and what it takes from the environment."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

import httpx

from shared_context_client._generated.errors import InvalidArgument

DEFAULT_URL = "http://127.0.0.1:23456"  # where `serve` listens if nobody says otherwise


@dataclass(frozen=True, slots=True)
class Retries:
    """Within `deadline_s` seconds a call is tried again, after a random part of a pause that
    doubles from `first_pause_s` to `longest_pause_s`. deadline_s=0: it is tried once."""

    deadline_s: float = 30.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """After `failures` calls in a row without an answer the client asks no more for `open_s`
    seconds, twice as long after each vain look, up to `longest_open_s`."""

    failures: int = 5
    open_s: float = 1.0
    longest_open_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the one connection pool. `answer_s`: for how long an answer is waited, beside what a
    tool may wait by itself. `stream_silence_s`: a stream of events in which nothing comes for so
    long is broken; the server sends a sign of life every 15 s. `poll_s`: for how long a follower
    asks to wait where no stream comes through; proxies give up after 30 to 60 s."""

    max_connections: int = 100
    connect_s: float = 5.0
    answer_s: float = 10.0
    stream_silence_s: float = 20.0
    poll_s: float = 25.0


def read_url(url: str | None) -> str:
    """The server's base URL: as given, else SCS_URL, else the default. Raises InvalidArgument."""
    given = url or os.environ.get("SCS_URL") or DEFAULT_URL
    try:
        parsed = httpx.URL(given)
    except httpx.InvalidURL as exc:
        raise InvalidArgument(f"url: {exc}.", details={"field": "url"}) from exc
    has_port = parsed.port is None or 0 < parsed.port < 65536
    if parsed.scheme not in ("http", "https") or not parsed.host or not has_port:
        raise InvalidArgument(
            f"url: {given!r} is not an http or https URL.", details={"field": "url"}
        )
    return given.rstrip("/").removesuffix("/mcp")


def read_api_key(api_key: str | None) -> str | None:
    """As given, else SCS_API_KEY."""
    return api_key or os.environ.get("SCS_API_KEY") or None


def direct_mounts(url: str) -> dict[str, None]:
    """Httpx's mounts that keep a server on this machine from being asked for through HTTP_PROXY:
    a proxy elsewhere would look for it on its own machine. Other servers are reached as the
    environment says."""
    host = httpx.URL(url).host
    return {f"all://{f'[{host}]' if ':' in host else host}": None} if _is_loopback(host) else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
