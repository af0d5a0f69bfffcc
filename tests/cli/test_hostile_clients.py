"""A whole server while a client does its worst: whoever asks beside it is answered."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import PATIENCE_S, Serve, ServerProcess

BOUND_S = 5.0  # for an answer beside an attack, on a machine that is busy with other tests
ASKED = 10
HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /mcp/tool/get_time HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def dial(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), PATIENCE_S)


def ask_health(server: ServerProcess) -> None:
    """Raises TimeoutError when the answer does not come within the bound."""
    port = urlsplit(server.url).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_S)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


@contextmanager
def attacking(
    server: ServerProcess, *chunks: bytes, times: int = 1
) -> Iterator[Callable[[], bytes]]:
    """A client that sends in the background for as long as it may; gives what it was answered."""
    client = dial(server)
    answered: list[bytes] = []

    def attack() -> None:
        with suppress(OSError):
            client.sendall(chunks[0])
            for _ in range(times):
                for chunk in chunks[1:]:
                    client.sendall(chunk)
        with suppress(OSError):
            while chunk := client.recv(65_536):
                answered.append(chunk)

    def wait() -> bytes:
        attacker.join(PATIENCE_S)
        return b"".join(answered)

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        yield wait
    finally:
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        attacker.join(PATIENCE_S)
        client.close()


MIB = b"a" * 1024 * 1024


@pytest.mark.parametrize(
    "chunks, times, status",
    [
        ((HEAD + b"X: ", MIB), 100, b"431"),
        ((HEAD, b"X: a\r\n" * 100_000), 10, b"431"),
        ((b"GET /", MIB), 100, b"414"),
        ((b"\r\n", b"\r\n" * 500_000), 20, b"431"),
        ((POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 200_000), 10, b"431"),
        ((POST + b"Transfer-Encoding: chunked\r\n\r\n1;", MIB), 100, b"431"),
        ((POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", MIB), 100, b"431"),
        (
            (POST.replace(b"127.0.0.1", b"evil") + b"Content-Length: 99999999999\r\n\r\n", MIB),
            100,
            b"421",
        ),
        ((POST + b"Content-Length: 99999999999\r\n\r\n", MIB), 100, b"413"),
        ((b"\0" * 1_000_000, MIB), 10, b"400"),
        ((HEAD + b"\r\n", (HEAD + b"\r\n") * 5000), 4, b"200"),
        ((HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", MIB), 100, b"200"),
    ],
    ids=[
        "a header of 100 MiB",
        "a million headers",
        "a target of 100 MiB",
        "empty lines",
        "chunks of a byte",
        "a chunk extension",
        "a trailer",
        "a refused body without end",
        "a body without end",
        "no HTTP at all",
        "many requests at once",
        "a websocket",
    ],
)
def test_nobody_waits_while_a_client_sends(
    serve: Serve, chunks: tuple[bytes, ...], times: int, status: bytes
) -> None:
    with serve() as server:
        with attacking(server, *chunks, times=times) as answer:
            for _ in range(ASKED):
                ask_health(server)
            if status != b"200":
                answered = answer()
                # The system may have thrown the answer away with what the client still sent.
                assert not answered or answered.startswith(b"HTTP/1.1 " + status)
        ask_health(server)


def test_connections_that_ask_nothing_keep_nobody_out(serve: Serve) -> None:
    with serve(MAX_CONNECTIONS="100") as server:
        clients = [dial(server) for _ in range(400)]
        for client in clients[::2]:
            with suppress(OSError):
                client.sendall(HEAD[:20])
        for _ in range(ASKED):
            ask_health(server)
        for client in clients:
            client.close()
        server.stop()
        assert server.stderr.count("a connection was closed to make room") == 1


def test_a_server_out_of_descriptors_goes_on_when_there_are_some(serve: Serve) -> None:
    with serve() as server:
        used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        clients = []
        for _ in range(50):
            with suppress(OSError):
                clients.append(dial(server))
        for client in clients:
            client.close()
        # As long as the server has not noticed that they are gone, a new connection may be reset.
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                ask_health(server)
                break
            except ConnectionError:
                assert time.monotonic() < deadline


def test_an_anonymous_caller_does_not_fill_the_log(serve: Serve) -> None:
    upgrade = HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    with serve(LOG_FORMAT="json") as server:
        for request in (b"garbage\r\n\r\n", upgrade, HEAD + b"Host: evil\r\n\r\n"):
            for _ in range(50):
                with dial(server) as client:
                    client.sendall(request)
                    while client.recv(65_536):
                        pass
        server.stop()
        said = [json.loads(line)["event"] for line in server.stderr.splitlines()]
        assert said.count("a request was refused") == 1
        assert said.count("an upgrade was not made") == 1
        assert len(said) < 30


@pytest.mark.parametrize(
    "proxies, believed", [("", False), ("192.0.2.0/24", False), ("127.0.0.0/8", True)]
)
def test_only_a_trusted_proxy_says_for_whom_it_calls(
    serve: Serve, proxies: str, believed: bool
) -> None:
    with serve(FAILED_AUTH_LIMIT="1/hour", TRUSTED_PROXIES=proxies) as server:
        statuses = []
        for number in range(3):
            connection = http.client.HTTPConnection(
                "127.0.0.1", urlsplit(server.url).port, timeout=PATIENCE_S
            )
            forwarded = {"X-Forwarded-For": f"198.51.100.{number}", "X-API-Key": "wrong"}
            connection.request("GET", "/metrics", headers=forwarded)
            statuses.append(connection.getresponse().status)
            connection.close()
        assert statuses == ([401] * 3 if believed else [401, 429, 429])
