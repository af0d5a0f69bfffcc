"""Real servers in processes of their own, clients of them, and a network that fails on demand."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import Any

import pytest

from shared_context_client import Limits, SharedContextClient
from shared_context_server.settings import Settings
from tests.cli.conftest import ServerProcess

API_KEY = "the-ordinary-key-0123456789"
ADMIN_API_KEY = "the-admins-key-0123456789"
PATIENCE_S = 30.0

OpenClient = Callable[..., SharedContextClient]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def server_environment(data_dir: Path, **variables: str) -> dict[str, str]:
    """The environment of a server: the keys of these tests, nothing that is set here otherwise."""
    ours = {name.upper() for name in Settings.model_fields} | {"ENV_FILE"}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in ours and not name.upper().startswith("SCS_")
    }
    keys = {"API_KEY": API_KEY, "ADMIN_API_KEY": ADMIN_API_KEY, "RATE_LIMIT": "off"}
    return inherited | keys | {"HTTP_PORT": "0", "DATA_DIR": str(data_dir)} | variables


class RestartableServer:
    """A server that always comes back at the same address, with the same data."""

    def __init__(self, directory: Path, *arguments: str, **variables: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._arguments = list(arguments)
        self._env = server_environment(directory / "data", **variables) | {
            "HTTP_PORT": str(self.port)
        }
        self._process: ServerProcess | None = None

    def start(self) -> None:
        self._process = ServerProcess(self._arguments, self._env, self._directory)
        self._process.wait_for(r"(http://[^/\s\"]+)/health")

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.process.send_signal(sig)
            self._process.kill()
            self._process = None

    def restart(self, sig: signal.Signals = signal.SIGTERM) -> None:
        self.stop(sig)
        self.start()


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that the tests of a module share."""
    server = RestartableServer(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server.url
    finally:
        server.stop(signal.SIGKILL)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RestartableServer]:
    """A started server of the test's own, that it may restart."""
    server = RestartableServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGKILL)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[SharedContextClient]:
    """alice, who may read and write."""
    async with make_client(server_url) as client:
        yield client


def make_client(url: str, agent_id: str = "alice", **options: Any) -> SharedContextClient:
    defaults: dict[str, Any] = {"limits": Limits(answer_s=PATIENCE_S)}
    key = {} if "token" in options else {"api_key": API_KEY}
    return SharedContextClient(url, agent_id=agent_id, **(key | defaults | options))


async def create_session(client: SharedContextClient) -> str:
    return (await client.create_session("tests")).session_id


class Fault(Enum):
    """What the relay does to a request instead of passing it on."""

    LOSE_ANSWER = auto()  # the server has done it, and nobody is told
    HANG_UP = auto()  # the server never hears of it


class Relay:
    """A proxy on a port of its own. `faults`: one for each of the next requests, a Fault or the
    bytes to answer. Event streams may be buffered or cut, as some proxies do."""

    def __init__(self, target: str) -> None:
        self._port = int(target.rsplit(":", 1)[1])
        self._server: asyncio.Server | None = None
        self.url = ""
        self.faults: deque[Fault | bytes] = deque()
        self.requests: list[str] = []
        self.holds_streams = False
        self.cuts_streams = False
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        port = int(self.url.rsplit(":", 1)[1]) if self.url else 0
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Break all connections; from now on they are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)

    def lines(self, path: str) -> list[str]:
        return [line for line in self.requests if line.split()[1].split("?")[0] == path]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._answer(reader, writer)
        self._serving.discard(task)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(lines[0])
        fault = self.faults.popleft() if self.faults else None
        is_stream = lines[0].startswith("GET /events")
        if fault is Fault.HANG_UP or (is_stream and self.cuts_streams):
            return
        if isinstance(fault, bytes):
            writer.write(fault)
            await writer.drain()
            return
        is_held = is_stream and self.holds_streams
        await self._forward(head, body, None if is_held or fault else writer)

    async def _forward(self, head: bytes, body: bytes, writer: asyncio.StreamWriter | None) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            line, rest = head.split(b"\r\n", 1)
            kept = b"\r\n".join(
                part for part in rest.split(b"\r\n") if not part.lower().startswith(b"connection:")
            )
            up_writer.write(line + b"\r\nConnection: close\r\n" + kept + body)
            while chunk := await up_reader.read(65536):
                if writer is not None:
                    writer.write(chunk)
                    await writer.drain()
        finally:
            up_writer.close()


def answer_bytes(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def relay_to(url: str) -> AsyncIterator[Relay]:
    relay = Relay(url)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


@pytest.fixture
async def relay(server_url: str) -> AsyncIterator[Relay]:
    async with relay_to(server_url) as relay:
        yield relay
