"""The process in which a server searches: see services/search_process.py."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial

import uvloop

from shared_context_server.errors import SharedContextError
from shared_context_server.models import Caller
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.services import freed_memory
from shared_context_server.services.candidates import Candidates
from shared_context_server.services.children import read_settings
from shared_context_server.services.context import SearchServices
from shared_context_server.services.late_imports import INDEX, SEARCH, import_late
from shared_context_server.services.search import search_here
from shared_context_server.services.search_process import (
    STOP_S,
    read_frame,
    write_frame,
)
from shared_context_server.services.search_request import SearchRequest
from shared_context_server.services.vectors import Vectors
from shared_context_server.storage import open_storage

IDLE_S = 60.0  # it ends after so long without a search
# What the server has of it, it has for all calls.
_SMALL_STORE = {"sqlite_readers": 2, "sqlite_cache_mb": 4, "postgres_pool_size": 2}

_log = get_logger("search")


async def serve(server: socket.socket) -> None:
    """Answer searches until the socket closes or nothing was searched for IDLE_S."""
    reader, writer = await asyncio.open_unix_connection(sock=server)
    written, expected = await read_frame(reader)
    settings = read_settings(written, **_SMALL_STORE)
    configure_logs(settings)
    async with open_storage(settings, expected) as store:
        candidates = Candidates(IndexFolder.of(settings) if settings.search_index else None)
        services = SearchServices(store, candidates, Vectors())
        await import_late(SEARCH)
        await import_late(INDEX)
        gc.collect()
        gc.freeze()
        write_frame(writer, None)
        searches = _Searches(services, writer)
        tasks = [
            asyncio.create_task(work)
            for work in (searches.serve(reader), searches.wait_until_idle(), _trim())
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        _end_soon()
        await _cancel([*tasks, *searches.tasks])
        candidates.close()
    writer.close()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End the tasks. How each has ended is no matter: the server has gone, or needs no answer."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _trim() -> None:
    while True:
        await asyncio.sleep(freed_memory.INTERVAL_S)
        await freed_memory.release_freed_memory()


def _end_soon() -> None:
    """End the process even if something hangs: nobody may be left to kill it."""
    ending = threading.Timer(STOP_S, os._exit, [1])
    ending.daemon = True
    ending.start()


class _Searches:
    """The searches under way. What the server sends: the number of a search, the caller, and the
    request, None for a search that nobody waits for any more."""

    def __init__(self, services: SearchServices, writer: asyncio.StreamWriter) -> None:
        self._services = services
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._asked_at = time.monotonic()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Start the searches that the server asks for. Raises IncompleteReadError at its end."""
        while True:
            number, caller, request = await read_frame(reader)
            if request is None:
                if (unwanted := self._tasks.get(number)) is not None:
                    unwanted.cancel()
                continue
            self._asked_at = time.monotonic()
            task = asyncio.create_task(self._answer(number, caller, request))
            self._tasks[number] = task
            task.add_done_callback(partial(self._forget, number))

    def _forget(self, number: int, _task: asyncio.Task[None]) -> None:
        del self._tasks[number]

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._tasks.values())

    async def wait_until_idle(self) -> None:
        """Return when nothing was searched for IDLE_S."""
        while True:
            left_s = self._asked_at + IDLE_S - time.monotonic()
            if left_s <= 0 and not self._tasks:
                return
            await asyncio.sleep(max(left_s, IDLE_S / 10))

    async def _answer(self, number: int, caller: Caller, request: SearchRequest) -> None:
        answer: object
        try:
            answer = await search_here(self._services, caller, request)
        except SharedContextError as exc:
            answer = exc
        except Exception:  # noqa: BLE001 - the server searches again, and tells the caller
            _log.exception("search failed")
            answer = None
        write_frame(self._writer, (number, answer))
        await self._writer.drain()


def main() -> int:
    """Serve the socket that standard input is. Return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        uvloop.run(serve(socket.socket(fileno=sys.stdin.fileno())))
    except SharedContextError as exc:
        _log.warning("the process for searches cannot read the store", error=str(exc))
        return 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the server has ended
    return 0


if __name__ == "__main__":
    sys.exit(main())
