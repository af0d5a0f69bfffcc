"""Read timeout: aborts connections whose clients do not read."""

from __future__ import annotations

import asyncio

from shared_context_server.observability.logs import get_logger

MIN_READ_BYTES = 16 * 1024  # that a client must read within the timeout

_log = get_logger("connections")


class ReadTimeout:
    """Aborts a connection if its write buffer stays full for `timeout_s`.

    If the client has read MIN_READ_BYTES in that time, the timeout starts again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        *,
        timeout_s: float,
        address: str,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._timeout_s = timeout_s
        self._address = address
        self._unread_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the timeout, again if it is running."""
        self.stop()
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._timeout_s, self._check)

    def start_while_closing(self) -> None:
        """Start the timeout if data is unsent: closing waits until all data is sent."""
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
