"""A TCP relay whose connections can be cut or held up, as a network does it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 65_536


class Relay:
    """Passes connections at `port` on to a server."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_used(self) -> bool:
        return bool(self._writers)

    def cut(self) -> int:
        """Reset all connections, in the middle of whatever they carry; return how many."""
        count = len(self._writers)
        for writer in tuple(self._writers):
            writer.transport.abort()
        return count

    def hold(self) -> None:
        """Let nothing pass until `flow` is called; connections stay open."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    async def aclose(self) -> None:
        self.flow()
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        there = asyncio.create_task(self._pass_on(reader, up_writer))
        back = asyncio.create_task(self._pass_on(up_reader, writer))
        for task in (there, back):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, up_writer):
            self._writers.discard(end)
            end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()


class RelayThread:
    """A relay that runs beside the program's own loop, for as long as the servers behind it."""

    def __init__(self, port: int) -> None:
        self._relay = Relay(port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._relay.start())

    @property
    def port(self) -> int:
        return self._relay.port

    def cut(self) -> int:
        """As of a relay. Blocks for a moment."""
        return self._run(self._cut())

    def close(self) -> None:
        self._run(self._relay.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cut(self) -> int:
        return self._relay.cut()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
