"""HTTP/1.1 connections with size limits and timeouts.

uvicorn and its parser do not limit the size of the request head, the time it takes, and the bytes of
chunk framing. Here these are limited, ambiguous requests are refused, and errors are answered in the
order of the requests.
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
from shared_context_server.cli.connection_limits import ConnectionLimiter, ConnectionLimits
from shared_context_server.cli.slow_readers import ReadTimeout
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
# Chunk sizes, chunk extensions and trailers may have this many bytes more than the body. So a short
# body can even be sent byte by byte.
MAX_FRAMING_BYTES = 64 * 1024
# The parser gets this much at once. One piece can contain some hundred small requests; they are served
# before the parser gets the next piece.
PIECE_BYTES = 16 * 1024
# How much is still read of a request that is refused or already answered: a client whose connection is
# closed while it sends gets a reset and not the answer.
MAX_DISCARDED_BYTES = 64 * 1024 * 1024
MAX_PIPELINED_BYTES = 1024 * 1024  # requests that were sent before earlier ones were answered
MIN_BODY_RATE = 1024  # bytes a second
METHODS = ["DELETE", "GET", "HEAD", "POST"]  # of all routes

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

_log = get_logger("connections")


class _Refused(Exception):
    """Stops the parser in one of its callbacks. The reason is in the connection."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection with timeouts and limits.

    `head_timeout_s` counts from the connection or from the first byte of a head. `body_timeout_s`
    grows with the size of the body, by MIN_BODY_RATE. A connection is aborted if its client does not
    read for `read_timeout_s`: closing it would wait until the client has read all data. At a
    shutdown an idle connection stays open for `shutdown_delay_s`, because a request may be on its
    way: if the connection closes, the client gets a reset and does not know the result of its call.
    """

    head_timeout_s = 10.0
    body_timeout_s = 20.0
    discard_timeout_s = 10.0
    read_timeout_s = 20.0
    shutdown_delay_s = 0.5

    address = ""
    _read_timeout: ReadTimeout
    _is_ending = False
    _is_refused = False  # further data is read and discarded
    _refusal: SharedContextError | None = None
    _deadline: float | None = None
    _running: RequestResponseCycle | None = None
    _discarded_bytes = 0
    _pipelined = b""  # received data that waits until earlier requests are answered

    # State of the request that is being received
    _is_in_head = True
    _has_begun = False
    _has_begun_now = False  # within the current piece
    _fed_bytes = 0  # since the start of the head or the body, without the piece it started in
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
        limits: ConnectionLimits | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limiter = ConnectionLimiter.of(server_state, limits or ConnectionLimits(), self.loop)
        self._codings, self._hosts = [], []

    # Start and end of the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._read_timeout = ReadTimeout(
            self.loop, transport, timeout_s=self.read_timeout_s, address=self.address
        )
        self._deadline = self.loop.time() + self.head_timeout_s
        refused = self._limiter.add(self)
        if refused is not None:
            self._is_refused = True
            transport.write(_compose_answer(refused))
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limiter.remove(self)
        self._read_timeout.stop()
        self._deadline, self._pipelined = None, b""
        self._unset_keepalive_if_required()
        if self._running is not None:  # uvicorn notifies only the newest request
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._is_ending = True
        is_new = self.cycle is None
        if is_new or self.cycle.response_complete:
            self.loop.call_later(self.shutdown_delay_s, super().shutdown)
        else:
            super().shutdown()

    def abort(self) -> None:
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self._read_timeout.start_while_closing()

    # Received data

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_refused:
            self._discard(len(data))
        elif self._pipelined:
            self._buffer(data)
        else:
            if self._is_in_head and self._deadline is None:
                self._begin_head()
            self._feed(data)

    def _buffer(self, data: bytes) -> None:
        self._pipelined += data
        if len(self._pipelined) > MAX_HEAD_BYTES:
            self.flow.pause_reading()
        if len(self._pipelined) > MAX_PIPELINED_BYTES:  # a waiting app has resumed reading
            self._pipelined, self._is_refused = b"", True
            self._end_after(self.pipeline[0][0] if self.pipeline else self.cycle)

    def eof_received(self) -> None:
        if self._is_refused:
            self._close()

    def _feed(self, data: bytes | memoryview) -> None:
        """Give the parser the data in pieces, until a request has to wait for an earlier one."""
        if len(data) <= PIECE_BYTES and not self.pipeline:
            self._feed_piece(data)
            return
        view, offset = memoryview(data), 0
        while offset < len(view) and not self._is_refused:
            if self.pipeline:
                self._pipelined = bytes(view[offset:])
                return
            self._feed_piece(view[offset : offset + PIECE_BYTES])
            offset += PIECE_BYTES

    def _feed_piece(self, piece: bytes | memoryview) -> None:
        self._has_begun_now = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as exc:
            self._ignore_upgrade(memoryview(piece)[exc.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or MalformedRequest("it is not valid HTTP/1.1"))
            return
        if not self._has_begun_now:
            self._fed_bytes += len(piece)
            self._check_size()

    def _check_size(self) -> None:
        """Check the size of data that the parser buffers."""
        if self._is_in_head:
            if self._fed_bytes > MAX_HEAD_BYTES:
                self._refuse(_too_large())
        elif self._fed_bytes - self._body_bytes > MAX_FRAMING_BYTES + self._body_bytes:
            self._refuse(_too_much_framing())

    def _ignore_upgrade(self, rest: memoryview) -> None:
        """Serve a request with an Upgrade header as HTTP/1.1. After an upgrade to WebSocket no HTTP
        would follow, so that connection ends."""
        _log.info("an upgrade was not made", throttle=True)
        if any(
            name == b"upgrade" and b"websocket" in value.lower() for name, value in self.headers
        ):
            self._is_refused = True
            self._end_after(self.cycle)
            return
        if not self._is_in_head:  # the parser treats the body as the other protocol
            self._restart_parser_in_body()
        if len(rest):
            self._feed(rest)

    def _restart_parser_in_body(self) -> None:
        """Continue with a new parser that gets the head without the Upgrade header."""
        name, value = next(line for line in self.headers if line[0] in _FRAMING)
        self._is_resuming = True
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % (name, value))
        self._is_resuming = False

    # Callbacks of the parser

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
            return  # trailers are ignored: a credential there would come too late
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
        self._require_unambiguous()
        super().on_headers_complete()
        if self._running is None or self._running.response_complete:
            self._running = self.cycle
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn pauses it and would not notice a disconnect
        if self._is_ending:
            self.cycle.keep_alive = False  # the answer gets the header Connection: close
        self._is_in_head, self._has_begun_now = False, True
        self._fed_bytes = 0
        self._body_began_at = self.loop.time()
        self._deadline = self._body_began_at + self.body_timeout_s
        self._limiter.mark_busy(self)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self.cycle.response_complete and self._body_bytes > MAX_DISCARDED_BYTES:
            self._fail(_too_much_framing())
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._has_body():
            return  # the body has not been read yet
        super().on_message_complete()
        self._is_in_head, self._has_begun, self._has_begun_now = True, False, True
        self._fed_bytes = 0
        self._deadline = None
        if self.cycle.response_complete:
            self._limiter.mark_idle(self)

    def _has_body(self) -> bool:
        return any(name in _FRAMING and value.strip(b" \t0") for name, value in self.headers)

    def on_response_complete(self) -> None:
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        self._running = following
        if self.transport.is_closing():
            self._read_timeout.start_while_closing()
        elif self._is_refused:
            if following is None:
                self._close()
        elif not self.pipeline and self._pipelined:
            pipelined, self._pipelined = self._pipelined, b""
            self._feed(pipelined)
        elif following is None and self._is_in_head:
            if self._deadline is None:
                self._limiter.mark_idle(self)
        elif following is None:  # the app did not read the whole body
            self._deadline = self.loop.time() + self.discard_timeout_s

    def _begin_head(self) -> None:
        self._deadline = self.loop.time() + self.head_timeout_s
        self._limiter.mark_in_head(self)

    def _require_unambiguous(self) -> None:
        """Refuse a request that a proxy in front of this server could read in another way."""
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
            self._parse_target()

    def _parse_target(self) -> None:
        """Reduce a URL as target to its path. `*` is only for OPTIONS, and the URL and Host must name
        the same host (RFC 9112 section 3.2)."""
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

    # Refusals

    def _refuse(self, error: SharedContextError) -> None:
        """Answer an unreadable request after the earlier ones, and end the connection."""
        _log.info(
            "a request was refused",
            code=error.code,
            reason=error.message,
            address=self.address,
            throttle=True,
        )
        self._is_refused = True
        self._pipelined = b""
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
            faulty.disconnected = True  # for the app that reads the body
            faulty.message_event.set()
            if faulty.response_started:
                self.transport.abort()  # so that the client sees that the answer is incomplete
                return
        self._discarded_bytes = 0
        self._deadline = self.loop.time() + self.discard_timeout_s
        self._limiter.mark_in_head(self)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _end_after(self, last: RequestResponseCycle) -> None:
        """Close the connection after the answer to this request."""
        last.keep_alive = False
        self._deadline = None
        if last.response_complete:
            self._close()

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.abort()

    # Timeouts

    def check_timeout(self, now: float) -> None:
        if self._deadline is None or now < self._deadline:
            return
        if self._is_refused or self._is_answered:
            self.transport.abort()
        elif self._is_in_head and not self._has_begun:
            self._close()  # there is no request to answer
        elif self._is_in_head:
            self._refuse(RequestTimeout("The head of the request did not come in time."))
        else:
            self._check_body_timeout(now)

    @property
    def _is_answered(self) -> bool:
        """Whether the request is answered, and only the rest of its body is still to come."""
        return not self._is_in_head and self.cycle.response_complete

    def _check_body_timeout(self, now: float) -> None:
        earned_s = self._body_bytes / MIN_BODY_RATE
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._body_began_at = now - earned_s  # the client is waiting for the server
        self._deadline = self._body_began_at + self.body_timeout_s + earned_s
        if now >= self._deadline:
            self._refuse(RequestTimeout("The body of the request did not come in time."))

    # Clients that do not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_timeout.start()

    def resume_writing(self) -> None:
        self._read_timeout.stop()
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
    """The error as a complete HTTP answer, for a request that does not reach the app."""
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
