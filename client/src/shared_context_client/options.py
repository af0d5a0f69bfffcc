"""The client's options, and the settings it reads from the environment."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

import httpx

from shared_context_client._generated.errors import InvalidArgument

DEFAULT_URL = "http://127.0.0.1:23456"  # the default address of `serve`


@dataclass(frozen=True, slots=True)
class Retries:
    """When calls are tried again: until `deadline_s` seconds have passed, after a random part of a
    pause that doubles from `first_pause_s` to `longest_pause_s`. deadline_s=0: no retries."""

    deadline_s: float = 30.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """When the circuit opens: after `failures` calls in a row without an answer, for `open_s`
    seconds, twice as long after each failed probe, up to `longest_open_s`."""

    failures: int = 5
    open_s: float = 1.0
    longest_open_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the connection pool. `answer_s`: time-out of an answer, in addition to a tool's own
    waiting. `stream_silence_s`: time-out of a silent event stream; the server sends a heartbeat
    every 15 s. `poll_s`: the waiting time of a follower's polls where streams do not get through;
    proxies give up after 30 to 60 s."""

    max_connections: int = 100
    connect_s: float = 5.0
    answer_s: float = 10.0
    stream_silence_s: float = 20.0
    poll_s: float = 25.0


def read_url(url: str | None) -> str:
    """Return the server's base URL: the given one, else SCS_URL, else the default. Raises
    InvalidArgument."""
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
    """Return the given key, else SCS_API_KEY."""
    return api_key or os.environ.get("SCS_API_KEY") or None


def direct_mounts(url: str) -> dict[str, None]:
    """Return httpx mounts that bypass HTTP_PROXY for a server on this machine: a proxy would look
    for it on its own machine. Other servers follow the environment."""
    host = httpx.URL(url).host
    return {f"all://{f'[{host}]' if ':' in host else host}": None} if _is_loopback(host) else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
