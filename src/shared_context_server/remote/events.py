"""Follow the server's event stream over restarts and failures of the network."""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from shared_context_server.remote.access import Access
from shared_context_server.remote.calls import (
    CallError,
    make_unreachable,
    name_place,
    read_error,
    split_url,
)

SILENCE_S = 45.0  # the server sends a sign of life every 15 s
CONNECT_S = 10.0
FIRST_PAUSE_S = (
    0.2  # doubled after each vain attempt, with chance so that not all come back at once
)
LONGEST_PAUSE_S = 15.0
MAX_LINE_BYTES = 8 * 1024 * 1024  # a message with 100,000 characters, all escaped, has 1.2 MB
MAX_ERROR_BYTES = 65_536
_REFUSALS = (400, 401, 403, 404, 405, 413, 421)
"""Statuses that another attempt does not change."""
_CONFLICT = 409
_OK = 200


class StreamEvent(NamedTuple):
    """`id` is 0 for a hint. `data` is the message, or what the hint names."""

    kind: str
    id: int
    data: dict[str, Any]


class LogSetBack(Exception):
    """The store was set back to an earlier state, so ids may be used again for other messages."""


class _CredentialEnded(Exception):
    """The credential of the stream has ended. A new connection asks for the present one."""


class EventStream:
    """The events of one session, or of all that the caller sees.

    `last_id` is the id of the last message that was taken; None means from now on, also after an
    interruption before the first message. `find_access` is called for each connection. `note` is told
    why a connection failed, once until one succeeds again.
    """

    def __init__(
        self,
        find_access: Callable[[], Access],
        session_id: str | None,
        last_id: int | None,
        note: Callable[[str], None],
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self.last_id = last_id
        self._longest_pause_s = longest_pause_s
        self._find_access = find_access
        self._access = find_access()
        self._session_id = session_id
        self._note = note
        self._pause_s = FIRST_PAUSE_S
        self._has_noted = False

    def follow(self, deadline: float | None = None) -> Generator[StreamEvent]:
        """Yield events, each message once and in order, until the deadline. After each opening of the
        stream comes the event `opened`.

        Raises CallError if the server refuses the request for good, LogSetBack, and ValueError for
        a URL that is none.
        """
        while deadline is None or time.monotonic() < deadline:
            try:
                yield from self._follow_once(deadline)
                reason = name_place(self._access.url, "the server has ended the stream")
            except _CredentialEnded:
                reason = ""  # the next connection has a newer one, or is refused for good
            except OSError as exc:
                reason = str(make_unreachable(self._access.url, exc))
            except http.client.HTTPException as exc:
                reason = name_place(self._access.url, str(exc) or type(exc).__name__)
            except CallError as exc:
                if exc.status in _REFUSALS:
                    raise
                reason = name_place(self._access.url, str(exc))
            if deadline is not None and time.monotonic() >= deadline:
                return
            if reason and not self._has_noted:
                self._note(f"{reason} Trying again until it answers.")
                self._has_noted = True
            pause_s = self._pause_s * random.uniform(0.5, 1)  # noqa: S311 - spreads attempts
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
            time.sleep(pause_s if deadline is None else min(pause_s, _left(deadline)))

    def _follow_once(self, deadline: float | None) -> Iterator[StreamEvent]:
        self._access = self._find_access()
        connection = self._connect(deadline)
        try:
            response, sock = self._open(connection)
            with response:
                yield StreamEvent("opened", 0, {})
                for event in _read_events(response, sock, deadline):
                    if event.kind == "credential_ended":
                        raise _CredentialEnded
                    if self._has_noted:
                        self._note(f"{self._access.url} answers again.")
                    self._has_noted, self._pause_s = False, FIRST_PAUSE_S
                    if event.kind == "log_set_back":
                        raise LogSetBack
                    if event.kind == "message":
                        if self.last_id is not None and event.id <= self.last_id:
                            continue
                        self.last_id = event.id
                    if event.kind:
                        yield event
        finally:
            connection.close()

    def _connect(self, deadline: float | None) -> http.client.HTTPConnection:
        is_tls, host, port, _, _ = split_url(self._access.url)
        timeout = CONNECT_S if deadline is None else min(CONNECT_S, _left(deadline))
        if is_tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=timeout)

    def _open(
        self, connection: http.client.HTTPConnection
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        headers = {"Accept": "text/event-stream", **self._access.headers}
        if self.last_id is not None:
            headers["Last-Event-ID"] = str(self.last_id)
        query = (
            "" if self._session_id is None else f"?session_id={quote(self._session_id, safe='')}"
        )
        connection.request(
            "GET", f"{split_url(self._access.url)[4]}/events{query}", headers=headers
        )
        sock: socket.socket = connection.sock
        response = connection.getresponse()
        if response.status != _OK:
            if response.status == _CONFLICT:
                raise LogSetBack
            raise read_error(response.status, response.read(MAX_ERROR_BYTES))
        return response, sock


def _read_events(
    response: http.client.HTTPResponse, sock: socket.socket, deadline: float | None
) -> Iterator[StreamEvent]:
    """Yield the events of an open stream, and one without a kind for each sign of life."""
    kind, event_id, data = "", 0, ""
    while True:
        sock.settimeout(SILENCE_S if deadline is None else min(SILENCE_S, _left(deadline)))
        line = response.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            return  # the end; an event without its empty line does not count
        name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            event_id = int(value) if value.isascii() and value.isdigit() else 0
        elif name == "data":
            data = value
        elif not name:
            if kind and not value:
                yield StreamEvent(kind, event_id, _read_object(data))
            else:
                yield StreamEvent("", 0, {})
            kind, event_id, data = "", 0, ""


def _read_object(data: str) -> dict[str, Any]:
    try:
        found = json.loads(data or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise http.client.HTTPException("the data of an event is no JSON object")
    return found


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
