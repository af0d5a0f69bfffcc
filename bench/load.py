"""A load generator light enough not to be the bottleneck: prepared requests over raw connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

MakeRequest = Callable[[], bytes]


@dataclass(frozen=True)
class Load:
    """What one round measured; latencies in seconds, sorted."""

    requests: int
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def quantile(self, q: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(q * len(self.latencies)))]


def http_request(path: str, body: Any, headers: dict[str, str] | None = None) -> bytes:
    """A POST with a JSON body as it goes over the wire."""
    payload = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines.append(f"Content-Length: {len(payload)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


class _Connection(asyncio.Protocol):
    """Sends the next request when the last one is answered, until the deadline."""

    def __init__(self, request: MakeRequest, deadline: float, latencies: list[float]) -> None:
        self._request = request
        self._deadline = deadline
        self._latencies = latencies
        self._buffer = b""
        self._sent_at = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._buffer = b""
        self._sent_at = time.perf_counter()
        self._transport.write(self._request())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or not _is_whole(head.lower(), body):
            return
        if self.done.done():  # nobody waits for it any more
            return
        now = time.perf_counter()
        if not head.startswith(b"HTTP/1.1 200") or b'"isError":true' in body:
            self.done.set_exception(RuntimeError(self._buffer.decode(errors="replace")[:2000]))
            self._transport.close()
            return
        self._latencies.append(now - self._sent_at)
        if now < self._deadline:
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


def _is_whole(head: bytes, body: bytes) -> bool:
    """Whether the body is all there, by its length or the last of its chunks."""
    length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
    return len(body) >= int(length) if length else body.endswith(b"0\r\n\r\n")


async def run_load(port: int, request: MakeRequest, *, connections: int, seconds: float) -> Load:
    """Keep `connections` requests in flight for `seconds`; any answer but 200 raises."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    started = time.perf_counter()
    opened = [
        await loop.create_connection(
            lambda: _Connection(request, started + seconds, latencies), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in opened))
    elapsed = time.perf_counter() - started
    return Load(len(latencies), elapsed, sorted(latencies))


Send = Callable[[bytes], Awaitable[bytes]]
"""Sends a request and returns the body of its answer; any answer but 200 raises."""


@asynccontextmanager
async def open_connection(port: int) -> AsyncIterator[Send]:
    """A connection that is kept alive, for one request after the other, whose answers state their
    length."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)

    async def send(request: bytes) -> bytes:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        body = await reader.readexactly(int(length))
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(body.decode(errors="replace")[:2000])
        return body

    try:
        yield send
    finally:
        writer.close()


async def fetch_body(port: int, request: bytes) -> bytes:
    """The body of one answer, which states its length; any answer but 200 raises."""
    async with open_connection(port) as send:
        return await send(request)
