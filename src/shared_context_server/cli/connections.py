"""A client's connection: cut off when it does not read, answered once more when the server ends."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """uvicorn's connection with more and with less patience.

    Aborted when its client has left a full buffer unread for `reader_patience_s`: closing it would
    wait for the client to read the rest. At a shutdown it stays open for `last_request_s` though
    nothing is under way, since a request may be: closed under it, the client gets a reset and
    cannot know what became of its call.
    """

    reader_patience_s = 20.0
    last_request_s = 0.5

    _stalled: asyncio.TimerHandle | None = None
    _is_ending = False

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.reader_patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    def shutdown(self) -> None:
        self._is_ending = True
        is_new = self.cycle is None
        if is_new or self.cycle.response_complete:
            self.loop.call_later(self.last_request_s, super().shutdown)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._is_ending:
            self.cycle.keep_alive = False  # and the answer says so

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_stall()
        super().connection_lost(exc)

    def _end_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
