"""Time limit for clients that do not read what is written to them."""

from __future__ import annotations

import asyncio

from shared_context_server.observability.logs import get_logger

MIN_READ_BYTES = 16 * 1024  # of what waits for a slow reader, within its patience

_log = get_logger("connections")


class ReaderLimit:
    """Aborts a connection whose client has left a full buffer unread for `patience_s`.

    A client that has read MIN_READ_BYTES meanwhile is given as long again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        *,
        patience_s: float,
        address: str,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._patience_s = patience_s
        self._address = address
        self._unread_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count, anew if it has begun."""
        self.stop()
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._patience_s, self._check)

    def start_while_closing(self) -> None:
        """Begin to count if it has not begun: closing waits until all is written, not for ever."""
        if self._transport.get_write_buffer_size() and self._timer is None:
            self.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        read_bytes = self._unread_bytes - self._transport.get_write_buffer_size()
        if read_bytes >= MIN_READ_BYTES:
            self.start()
            return
        _log.info("a reader was cut off", address=self._address, throttle=True)
        self._transport.abort()
