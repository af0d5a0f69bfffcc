"""Call tools over plain HTTP, one connection a request, within a deadline.

HTTP/1.0 ends an answer by closing the connection, so neither chunks nor lengths need to be read.
http.client would take most of a hook's time to import.
"""

from __future__ import annotations

import json
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from shared_context_server.remote.access import Access

MAX_ANSWER_BYTES = 64 * 1024 * 1024
AGENT_FIELD = "X-Agent-ID"  # of errors about who the caller says to be
_CHUNK_BYTES = 65_536
_OK = 200


class CallError(Exception):
    """The server refused a request or a call, or its answer is none of ours.

    `status` is that of HTTP, 0 without an answer; `code` that of the server's error, "" without one;
    `field` names what is wrong, "" if nothing is named.
    """

    def __init__(self, status: int, message: str, code: str = "", field: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field

    @property
    def advice(self) -> str:
        """What to do on the command line, behind a space; "" if the message says it."""
        if self.field == AGENT_FIELD:
            return " Name an agent that the key is for with --agent-id, or SCS_AGENT_ID."
        return ""


class Unreachable(OSError):
    """The server could not be asked. `text` says what happened, and `advice` what to do."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(f"{text} {advice}")
        self.text = text
        self.advice = advice


def name_place(url: str, reason: str) -> str:
    """Return a sentence with the server that it is about."""
    return f"{url}: {reason.rstrip('.')}."


def make_unreachable(url: str, exc: OSError) -> Unreachable:
    """Return a failure of the network in words, for whoever runs a command."""
    if isinstance(exc, Unreachable):
        return exc
    if isinstance(exc, TimeoutError):
        return Unreachable(f"The server at {url} did not answer in time.", "See its log.")
    text = f"The server at {url} cannot be reached: {exc.strerror or exc}."
    if isinstance(exc, ConnectionRefusedError):
        text = f"No server answers at {url}."
    return Unreachable(text, "Start it with `scs serve`, or name another with --url or --data-dir.")


def read_error(status: int, body: bytes) -> CallError:
    """The error that this answer is."""
    try:
        error = json.loads(body)
        field = str(error.get("details", {}).get("field", ""))
        return CallError(status, str(error["error"]), str(error["code"]), field)
    except (ValueError, TypeError, KeyError, AttributeError):
        return CallError(status, f"The answer {status} is none of a Shared Context Server.")


def split_url(url: str) -> tuple[bool, str, int, str, str]:
    """Whether the URL is https, its host, its port, what to send as Host, and its path's prefix.

    Raises ValueError.
    """
    scheme, has_scheme, rest = url.partition("://")
    if not has_scheme or scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is not a URL that begins with http:// or https://.")
    host_and_port, _, path = rest.partition("/")
    host, colon, port = host_and_port.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = host_and_port, "443" if scheme == "https" else "80"
    if not host or "@" in host or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{url!r} has no host that can be called.")
    prefix = f"/{path}".rstrip("/")
    return scheme == "https", host.strip("[]"), int(port), host_and_port, prefix


def call_tools(
    access: Access, calls: Sequence[tuple[str, dict[str, Any]]], deadline: float
) -> list[dict[str, Any]]:
    """Call tools in one batch, in order. Return their results; `success` says which have failed.

    `deadline` is a time of time.monotonic(). Raises CallError if the server refuses the request,
    Unreachable if it cannot be reached in time, ValueError for a URL that is none.
    """
    batch = {"calls": [{"tool": tool, "arguments": arguments} for tool, arguments in calls]}
    status, body = _request(access, "/mcp/batch", json.dumps(batch).encode(), deadline)
    if status != _OK:
        raise read_error(status, body)
    try:
        return [item["result"] for item in json.loads(body)["results"]]
    except (ValueError, TypeError, KeyError):
        raise read_error(status, b"") from None


def get_json(access: Access, path: str, deadline: float) -> dict[str, Any]:
    """Read a JSON object with GET. Raises as call_tools does."""
    status, body = _request(access, path, None, deadline)
    if status != _OK:
        raise read_error(status, body)
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError):
        raise read_error(status, b"") from None


def _request(access: Access, path: str, body: bytes | None, deadline: float) -> tuple[int, bytes]:
    """Send a POST with this body, or a GET. Return the status and the answer's body."""
    try:
        return _exchange(access, path, body, deadline)
    except OSError as exc:
        raise make_unreachable(access.url, exc) from exc


def _exchange(access: Access, path: str, body: bytes | None, deadline: float) -> tuple[int, bytes]:
    is_tls, host, port, name, prefix = split_url(access.url)
    headers = {"Host": name, **access.headers}
    if body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{field}: {value}\r\n" for field, value in headers.items())
    # As bytes, since text is passed through the codec for international names, a slow import.
    address: Any = (host.encode() if host.isascii() else host, port)
    with socket.create_connection(address, _left(deadline)) as connection:
        if is_tls:
            import ssl  # noqa: PLC0415 - usually not needed

            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
        method = "GET" if body is None else "POST"
        head = f"{method} {prefix}{path} HTTP/1.0\r\n{lines}\r\n"
        connection.sendall(head.encode("latin-1") + (body or b""))
        answer = bytearray()
        while True:
            connection.settimeout(_left(deadline))
            chunk = connection.recv(_CHUNK_BYTES)
            if not chunk:
                break
            answer += chunk
            if len(answer) > MAX_ANSWER_BYTES:
                raise CallError(0, "The answer is too large.")
    first, _, content = bytes(answer).partition(b"\r\n\r\n")
    words = first.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise CallError(0, "The answer is no HTTP.")
    return int(words[1]), content


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the server took too long")
    return left
