"""Connect to the first of several hosts that is suitable."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import asyncpg

from shared_context_server.settings import Settings

_NOT_THIS_ONE = (
    OSError,  # and TimeoutError
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)


class Connector:
    """Opens connections by a URL that may name several hosts, `user@one:5432,two:5432/database`.

    asyncpg tries several hosts too, but within one time-out: a host that does not answer would use
    up all of it. Here each host has its share, and the one that answered last is tried first.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._urls = _name_each_host(url)
        self._timeout_s = settings.postgres_timeout
        self._arguments = {
            "command_timeout": settings.postgres_timeout,
            "statement_cache_size": 100 if settings.postgres_prepare else 0,
        }

    async def connect(self, **arguments: Any) -> asyncpg.Connection[Any]:
        """Open a connection within the configured time. `arguments` are passed to asyncpg's
        connect(), whose errors are raised."""
        share_s = self._timeout_s / len(self._urls)
        for position, url in enumerate(self._urls, start=1):
            try:
                connection: asyncpg.Connection[Any] = await asyncpg.connect(
                    url, timeout=share_s, **(self._arguments | arguments)
                )
            except _NOT_THIS_ONE:
                if position == len(self._urls):
                    raise
            else:
                self._urls = (url, *(other for other in self._urls if other != url))
                return connection
        raise AssertionError("there is always a host")


def _name_each_host(url: str) -> tuple[str, ...]:
    netloc = urlsplit(url).netloc
    user, at, hosts = netloc.rpartition("@")
    if "," not in hosts:
        return (url,)
    return tuple(
        url.replace(netloc, f"{user}{at}{host}", 1) for host in dict.fromkeys(hosts.split(","))
    )
