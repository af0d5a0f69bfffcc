"""A client's connection: HTTP/1.1 with a bound on everything that it can send and leave unsent.

What uvicorn and its parser leave open is decided here: the size of a head, how long one may take, how
much may come besides a body, whose turn a refusal is, and what of a request is ambiguous.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, NoReturn

import httptools
from pydantic_core import to_json
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from shared_context_server.auth.middleware.answers import error_headers
from shared_context_server.cli.admission import Caps, Door
from shared_context_server.cli.slow_readers import ReaderLimit
from shared_context_server.errors import (
    HeadersTooLarge,
    MalformedRequest,
    MethodNotAllowed,
    RequestTimeout,
    SharedContextError,
    TargetTooLong,
)
from shared_context_server.observability.logs import get_logger

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADER_LINES = 100
MAX_TARGET_BYTES = 16 * 1024
# Chunk sizes, their extensions and trailers: so many bytes more than the body has, which lets even a
# short body come byte by byte.
MAX_FRAMING_BYTES = 64 * 1024
# What the parser gets at once. One piece may hold some hundred small requests; they are served before
# it gets the next.
PIECE_BYTES = 16 * 1024
# Of a request that is refused, or answered before it was read, so much is still read: who is cut off
# while sending sees a reset and not the answer.
MAX_DISCARDED_BYTES = 64 * 1024 * 1024
MAX_HELD_BYTES = 1024 * 1024  # requests that were sent ahead of the answers to those before
MIN_BODY_RATE = 1024  # bytes a second
METHODS = ["DELETE", "GET", "HEAD", "POST"]  # of all routes

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

_log = get_logger("connections")


class _Refused(Exception):
    """Stops the parser from within; the reason is in the connection."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection with more and with less patience.

    A head has `head_patience_s` from the connection or from its first byte on; a body
    `body_patience_s` and as much more as MIN_BODY_RATE asks for. Aborted when its client has left a
    full buffer unread for `reader_patience_s`: closing it would wait for the client to read the
    rest. At a shutdown it stays open for `last_request_s` though nothing is under way, since a
    request may be: closed under it, the client gets a reset and cannot know what became of its call.
    """

    head_patience_s = 10.0
    body_patience_s = 20.0
    discard_patience_s = 10.0
    reader_patience_s = 20.0
    last_request_s = 0.5

    address = ""
    _reader_limit: ReaderLimit
    _is_ending = False
    _is_refused = False  # what still comes is read and thrown away
    _refusal: SharedContextError | None = None
    _deadline: float | None = None
    _running: RequestResponseCycle | None = None
    _discarded_bytes = 0
    _held = b""  # has come, and waits until what came before it has been answered

    # Of the request that is arriving
    _is_in_head = True
    _has_begun = False
    _has_begun_now = False  # within the piece that the parser has now
    _fed_bytes = 0  # since the beginning of the head, or of the body, but for the piece it began in
    _head_bytes = 0
    _header_lines = 0
    _body_bytes = 0
    _body_began_at = 0.0
    _is_resuming = False
    _codings: list[bytes]
    _hosts: list[bytes]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = Door.of(server_state, caps or Caps(), self.loop)
        self._codings, self._hosts = [], []

    # Connecting and ending

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._reader_limit = ReaderLimit(
            self.loop, transport, patience_s=self.reader_patience_s, address=self.address
        )
        self._deadline = self.loop.time() + self.head_patience_s
        refused = self._door.enter(self)
        if refused is not None:
            self._is_refused = True
            transport.write(_compose_answer(refused))
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        self._reader_limit.stop()
        self._deadline, self._held = None, b""
        self._unset_keepalive_if_required()
        if self._running is not None:  # uvicorn tells the newest request only
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._is_ending = True
        is_new = self.cycle is None
        if is_new or self.cycle.response_complete:
            self.loop.call_later(self.last_request_s, super().shutdown)
        else:
            super().shutdown()

    def make_room(self) -> None:
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self._reader_limit.start_while_closing()

    # What arrives

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_refused:
            self._discard(len(data))
        elif self._held:
            self._hold(data)
        else:
            if self._is_in_head and self._deadline is None:
                self._begin_head()
            self._feed(data)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_HEAD_BYTES:
            self.flow.pause_reading()
        if len(self._held) > MAX_HELD_BYTES:  # an app that waits for a disconnect reads on
            self._held, self._is_refused = b"", True
            self._end_after(self.pipeline[0][0] if self.pipeline else self.cycle)

    def eof_received(self) -> None:
        if self._is_refused:
            self._close()

    def _feed(self, data: bytes | memoryview) -> None:
        """Give the parser what has come, piece by piece, until a request has to wait for its turn."""
        if len(data) <= PIECE_BYTES and not self.pipeline:
            self._feed_piece(data)
            return
        view, offset = memoryview(data), 0
        while offset < len(view) and not self._is_refused:
            if self.pipeline:
                self._held = bytes(view[offset:])
                return
            self._feed_piece(view[offset : offset + PIECE_BYTES])
            offset += PIECE_BYTES

    def _feed_piece(self, piece: bytes | memoryview) -> None:
        self._has_begun_now = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as exc:
            self._go_on_after_upgrade(memoryview(piece)[exc.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or MalformedRequest("it is not valid HTTP/1.1"))
            return
        if not self._has_begun_now:
            self._fed_bytes += len(piece)
            self._check_size()

    def _check_size(self) -> None:
        """Count what the parser keeps to itself until it is complete."""
        if self._is_in_head:
            if self._fed_bytes > MAX_HEAD_BYTES:
                self._refuse(_too_large())
        elif self._fed_bytes - self._body_bytes > MAX_FRAMING_BYTES + self._body_bytes:
            self._refuse(_too_much_framing())

    def _go_on_after_upgrade(self, rest: memoryview) -> None:
        """No protocol is spoken but HTTP/1.1: the request was read as one of those. Behind an offer
        of WebSocket nothing of HTTP would follow."""
        _log.info("an upgrade was not made", throttle=True)
        if any(
            name == b"upgrade" and b"websocket" in value.lower() for name, value in self.headers
        ):
            self._is_refused = True
            self._end_after(self.cycle)
            return
        if not self._is_in_head:  # the parser takes the body for the other protocol
            self._parse_body_anew()
        if len(rest):
            self._feed(rest)

    def _parse_body_anew(self) -> None:
        """Go on with a parser that believes to have read the head of the request without its offer."""
        name, value = next(line for line in self.headers if line[0] in _FRAMING)
        self._is_resuming = True
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % (name, value))
        self._is_resuming = False

    # The parser's calls

    def on_message_begin(self) -> None:
        if self._is_resuming:
            return
        super().on_message_begin()
        self._has_begun = self._has_begun_now = True
        self._fed_bytes = self._head_bytes = self._header_lines = self._body_bytes = 0
        self._codings, self._hosts = [], []
        if self._deadline is None:
            self._begin_head()

    def on_url(self, url: bytes) -> None:
        if self._is_resuming:
            return
        super().on_url(url)
        self._head_bytes += len(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._fail(
                TargetTooLong(
                    f"The request's target is over {MAX_TARGET_BYTES} bytes.",
                    limit_bytes=MAX_TARGET_BYTES,
                )
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_resuming:
            return
        self._head_bytes += len(name) + len(value) + 4  # the colon, a space and the line's end
        self._header_lines += 1
        if self._head_bytes > MAX_HEAD_BYTES or self._header_lines > MAX_HEADER_LINES:
            self._fail(_too_large())
        if not self._is_in_head:
            return  # a trailer: it came too late to say who calls, or anything else
        name = name.lower()
        if name == b"host":
            self._hosts.append(value)
        elif name == b"transfer-encoding":
            self._codings.append(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._is_resuming:
            return
        self._require_one_meaning()
        super().on_headers_complete()
        if self._running is None or self._running.response_complete:
            self._running = self.cycle
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn pauses it, and would not hear of a disconnect
        if self._is_ending:
            self.cycle.keep_alive = False  # and the answer says so
        self._is_in_head, self._has_begun_now = False, True
        self._fed_bytes = 0
        self._body_began_at = self.loop.time()
        self._deadline = self._body_began_at + self.body_patience_s
        self._door.note_busy(self)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self.cycle.response_complete and self._body_bytes > MAX_DISCARDED_BYTES:
            self._fail(_too_much_framing())
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._has_body():
            return  # nothing of it has been read
        super().on_message_complete()
        self._is_in_head, self._has_begun, self._has_begun_now = True, False, True
        self._fed_bytes = 0
        self._deadline = None
        if self.cycle.response_complete:
            self._door.note_idle(self)

    def _has_body(self) -> bool:
        return any(name in _FRAMING and value.strip(b" \t0") for name, value in self.headers)

    def on_response_complete(self) -> None:
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        self._running = following
        if self.transport.is_closing():
            self._reader_limit.start_while_closing()
        elif self._is_refused:
            if following is None:
                self._close()
        elif not self.pipeline and self._held:
            held, self._held = self._held, b""
            self._feed(held)
        elif following is None and self._is_in_head:
            if self._deadline is None:
                self._door.note_idle(self)
        elif following is None:  # the rest of a body that nobody has read
            self._deadline = self.loop.time() + self.discard_patience_s

    def _begin_head(self) -> None:
        self._deadline = self.loop.time() + self.head_patience_s
        self._door.note_beginning(self)

    def _require_one_meaning(self) -> None:
        """Refuse what a proxy in front of us could have read in another way."""
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._fail(MalformedRequest("it is not HTTP/1.1 or HTTP/1.0"))
        if self._codings and version == "1.0":
            self._fail(MalformedRequest("HTTP/1.0 has no Transfer-Encoding"))
        if self._codings and [coding.strip(b" \t").lower() for coding in self._codings] != [
            b"chunked"
        ]:
            self._fail(MalformedRequest("the only Transfer-Encoding is chunked"))
        if len(self._hosts) > 1:
            self._fail(MalformedRequest("it has several Host headers"))
        if self.parser.get_method() == b"CONNECT":
            self._fail(MethodNotAllowed("CONNECT", "*", METHODS))
        if not self.url.startswith(b"/"):
            self._take_apart_target()

    def _take_apart_target(self) -> None:
        """`*` is for OPTIONS; a URL has to name the host that Host names (RFC 9112 section 3.2)."""
        if self.url == b"*":
            if self.parser.get_method() == b"OPTIONS":
                self._fail(MethodNotAllowed("OPTIONS", "*", METHODS))
            self._fail(MalformedRequest("its target is not a path"))
        scheme, separator, rest = self.url.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            self._fail(MalformedRequest("its target is not a path"))
        end = min((at for at in map(rest.find, (b"/", b"?", b"#")) if at >= 0), default=len(rest))
        named = [host.strip(b" \t").lower() for host in self._hosts]
        if named != [rest[:end].lower()]:
            self._fail(MalformedRequest("its target names another host than Host does"))
        target = rest[end:]
        self.url = target if target.startswith(b"/") else b"/" + target

    def _fail(self, error: SharedContextError) -> NoReturn:
        self._refusal = error
        raise _Refused

    # Refusing

    def _refuse(self, error: SharedContextError) -> None:
        """Answer what cannot be read as a request when it is its turn, and end the connection."""
        _log.info(
            "a request was refused",
            code=error.code,
            reason=error.message,
            address=self.address,
            throttle=True,
        )
        self._is_refused = True
        self._held = b""
        faulty = None if self._is_in_head else self.cycle
        if faulty is not None and self.pipeline and self.pipeline[0][0] is faulty:
            self.pipeline.popleft()
            faulty = None
        if faulty is None and self._running is not None and not self._running.response_complete:
            self._end_after(self.pipeline[0][0] if self.pipeline else self._running)
            return
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if faulty is None or not faulty.response_started:
            self.transport.write(_compose_answer(error))
        if faulty is not None and not faulty.response_complete:
            faulty.disconnected = True  # for the app that reads it
            faulty.message_event.set()
            if faulty.response_started:
                self.transport.abort()  # a cut answer, not one that looks whole
                return
        self._discarded_bytes = 0
        self._deadline = self.loop.time() + self.discard_patience_s
        self._door.note_beginning(self)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _end_after(self, last: RequestResponseCycle) -> None:
        """Close the connection when this request has been answered."""
        last.keep_alive = False
        self._deadline = None
        if last.response_complete:
            self._close()

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.abort()

    # Time

    def check_time(self, now: float) -> None:
        if self._deadline is None or now < self._deadline:
            return
        if self._is_refused or self._is_answered:
            self.transport.abort()
        elif self._is_in_head and not self._has_begun:
            self._close()  # nothing was asked
        elif self._is_in_head:
            self._refuse(RequestTimeout("The head of the request did not come in time."))
        else:
            self._check_body_time(now)

    @property
    def _is_answered(self) -> bool:
        """Whether only the rest of a body is awaited, of which nobody wants anything."""
        return not self._is_in_head and self.cycle.response_complete

    def _check_body_time(self, now: float) -> None:
        earned_s = self._body_bytes / MIN_BODY_RATE
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._body_began_at = now - earned_s  # it is us who keep the client waiting
        self._deadline = self._body_began_at + self.body_patience_s + earned_s
        if now >= self._deadline:
            self._refuse(RequestTimeout("The body of the request did not come in time."))

    # Clients that do not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_limit.start()

    def resume_writing(self) -> None:
        self._reader_limit.stop()
        super().resume_writing()


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"The headers are over {MAX_HEAD_BYTES} bytes or {MAX_HEADER_LINES} lines.",
        limit_bytes=MAX_HEAD_BYTES,
        limit_lines=MAX_HEADER_LINES,
    )


def _too_much_framing() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"Chunk extensions and trailers are over {MAX_FRAMING_BYTES} bytes.",
        limit_bytes=MAX_FRAMING_BYTES,
    )


def _compose_answer(error: SharedContextError) -> bytes:
    """The error as a whole HTTP answer, for where no application answers."""
    body = to_json(error.body())
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *error_headers(error.status, error.retry_after_s),
    ]
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(METHODS).encode()))
    status = HTTPStatus(error.status)
    lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", body])
