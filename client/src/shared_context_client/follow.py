"""Follow a session: every message once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import httpx
from pydantic import ValidationError

from shared_context_client._generated.errors import CursorLost, SessionNotFound
from shared_context_client._generated.results import MessageItem
from shared_context_client._generated.tools import AsyncTools
from shared_context_client.connection import Connection, CredentialEnded
from shared_context_client.errors import ServerUnavailable, SharedContextError, UnexpectedAnswer
from shared_context_client.event_stream import EventStreamParser, ServerEvent

PAGE_SIZE = 200
VAIN_STREAMS = 3  # in a row while the server answered: a proxy cuts the streams


class _StreamUnusable(Exception):
    """No event stream gets through from the server."""


class Follower:
    """Follows one session after `after_seq`; None: from now on."""

    def __init__(
        self, tools: AsyncTools, connection: Connection, session_id: str, after_seq: int | None
    ) -> None:
        self._tools = tools
        self._connection = connection
        self._session_id = session_id
        self._seq = after_seq
        self._heard_at = time.monotonic()
        self._attempt = 0
        self._has_heard = False
        self._vain_streams = 0

    async def follow(self, patience_s: float | None) -> AsyncGenerator[MessageItem]:
        """Yield messages until the session is closed.

        Raises SessionNotFound when it is deleted, CursorLost when the server's store was set back
        to an earlier state, so that messages may be gone, Unauthenticated when the credential has
        ended, and ServerUnavailable when the server did not answer for `patience_s` (None: no
        limit).
        """
        while True:
            try:
                async with aclosing(self._follow_once()) as messages:
                    async for message in messages:
                        yield message
            except _StreamUnusable:
                self._connection.are_streams_usable = False
                continue
            except SharedContextError as exc:
                if not exc.retryable:
                    raise
                pause_s = self._connection.pause_s(self._attempt, exc.retry_after_s)
                away_s = time.monotonic() - self._heard_at
                if patience_s is not None and away_s + pause_s > patience_s:
                    raise
                self._attempt += 1
            else:
                return
            await asyncio.sleep(pause_s)

    async def _follow_once(self) -> AsyncGenerator[MessageItem]:
        if self._seq is None:
            newest = await self._tools.get_messages(self._session_id, limit=1)
            self._seq = newest.next_after_seq
        is_stream = self._connection.are_streams_usable
        try:
            async with aclosing(self._stream() if is_stream else self._poll()) as messages:
                async for message in messages:
                    # A reopened stream may start earlier; messages are not yielded twice.
                    if message.seq > self._seq:
                        self._seq = message.seq
                        yield message
        except ServerUnavailable as exc:
            if is_stream and not self._has_heard and await self._connection.probe() is None:
                self._vain_streams += 1
                if self._vain_streams == VAIN_STREAMS:
                    raise _StreamUnusable from exc
            raise

    def _note_sign_of_life(self) -> None:
        self._heard_at = time.monotonic()
        self._attempt = 0

    async def _stream(self) -> AsyncGenerator[MessageItem]:
        """Read the event stream. Returns when the session is closed and all has been read."""
        assert self._seq is not None
        self._has_heard = False
        try:
            async with self._connection.open_events(self._session_id, self._seq) as response:
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    raise _StreamUnusable
                # After the opening, because the stream reports all that happens from here on.
                if await self._is_closed():
                    async for message in self._read_rest():
                        yield message
                    return
                parser = EventStreamParser()
                async for chunk in response.aiter_bytes():
                    self._has_heard = True
                    self._vain_streams = 0
                    self._note_sign_of_life()
                    for event in parser.feed(chunk):
                        if event.type == "message":
                            yield _read_message(event)
                        elif event.type == "session_closed":
                            async for message in self._read_rest():
                                yield message
                            return
                        elif event.type == "session_deleted":
                            raise SessionNotFound(
                                f"The session {self._session_id!r} was deleted.",
                                details={"session_id": self._session_id},
                            )
                        elif event.type == "credential_ended":
                            raise CredentialEnded
                        elif event.type == "log_set_back":
                            raise CursorLost(
                                "The server's store was set back to an earlier state.",
                                details={"field": "after_seq", "cursor": self._seq},
                            )
        except UnexpectedAnswer as exc:
            raise _StreamUnusable from exc
        except ServerUnavailable as exc:
            # The server was reachable, but sent nothing for longer than its heartbeat.
            if isinstance(exc.__cause__, httpx.ReadTimeout) and not self._has_heard:
                raise _StreamUnusable from exc
            raise
        raise ServerUnavailable("The stream has ended.")

    async def _poll(self) -> AsyncGenerator[MessageItem]:
        """Read by long polling. Returns when the session is closed and all has been read."""
        while True:
            waited = await self._tools.wait_for_messages(
                self._session_id,
                after_seq=self._seq,
                timeout_seconds=self._connection.limits.poll_s,
                limit=PAGE_SIZE,
                include_own=True,
            )
            self._note_sign_of_life()
            for message in waited.messages:
                yield message
            if waited.timed_out and await self._is_closed():
                async for message in self._read_rest():
                    yield message
                return

    async def _is_closed(self) -> bool:
        details = await self._tools.get_session(self._session_id)
        self._note_sign_of_life()
        return details.session.status == "closed"

    async def _read_rest(self) -> AsyncIterator[MessageItem]:
        """Read the messages that are there. For a closed session these are all."""
        has_more = True
        while has_more:
            page = await self._tools.get_messages(
                self._session_id, after_seq=self._seq, limit=PAGE_SIZE
            )
            for message in page.messages:
                yield message
            has_more = page.has_more


def _read_message(event: ServerEvent) -> MessageItem:
    try:
        return MessageItem.model_validate_json(event.data)
    except ValidationError as exc:
        raise UnexpectedAnswer(f"The event {event.id!r} is not a message.") from exc
