"""GET /events: stream events as server-sent events, for clients without MCP."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from pydantic import TypeAdapter
from pydantic_core import to_json
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from shared_context_server import policy
from shared_context_server.auth.middleware import current_connection
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Event, EventKind, Message, Permission
from shared_context_server.observability.logs import get_logger
from shared_context_server.rest.wire import finish_answer
from shared_context_server.services import feeds
from shared_context_server.services.context import Services
from shared_context_server.tools.messages import MessageItem

EVENTS_PATH = "/events"
HEARTBEAT_S = 15.0  # proxies close connections that are silent for longer, usually 30 to 60 s
# A reader that reads nothing for this long is disconnected; it reconnects with Last-Event-ID. `serve`
# itself is stricter (cli.connections); this is for other ASGI servers.
SEND_TIMEOUT_S = 30.0
LAST_EVENT_ID = "Last-Event-ID"
_MESSAGE_ITEM = TypeAdapter(MessageItem)

_NUMBER = re.compile(r"[0-9]{1,18}")
MAX_EVENT_ID = 10**18 - 1  # what fits into it
_NEWLINE = "\n"

# Line ends in Unicode, and for many clients, but not in server-sent events. JSON may escape these
# and has to escape all other line ends.
_LINE_ENDS = str.maketrans({"\x85": r"\u0085", "\u2028": r"\u2028", "\u2029": r"\u2029"})

_log = get_logger("events")


class EventsEndpoint:
    """Errors are answered as on every route, before the stream begins.

    The memory of a stream is bounded: a page of messages, and the events its subscription keeps. A
    page is read when the one before it has been sent.
    """

    def __init__(
        self,
        services: Services,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        self._services = services
        self._heartbeat_s = heartbeat_s
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        caller = current_connection.get().caller
        policy.require_permission(caller, Permission.READ)
        session_id = _read_session_id(request)
        last_id = _read_last_event_id(request)
        feed: feeds.Feed
        if session_id is None:
            feed = await feeds.open_all_sessions_feed(self._services, caller, last_id)
        else:
            feed = await feeds.open_session_feed(self._services, caller, session_id, last_id)
        with (
            self._services.slots.take(caller),
            self._services.bus.subscribe(feed.wants, session_id=feed.session_id) as subscription,
        ):
            # Before the answer begins, so that whoever has it is told what happens from then on.
            await self._services.bus.wait_until_linked()
            items = feeds.follow_feed(self._services, caller, feed, subscription)
            response = EventSourceResponse(
                _encode(items, is_all_sessions=session_id is None),
                ping=self._heartbeat_s,
                ping_message_factory=_make_heartbeat,
                send_timeout=self._send_timeout_s,
                sep=_NEWLINE,
            )
            try:
                await finish_answer(response, scope, receive, send)
            except SendTimeoutError:
                _log.info(
                    "a slow reader was cut off",
                    agent_id=caller.agent_id,
                    session_id=session_id,
                    throttle=True,
                )


def _read_session_id(request: Request) -> str | None:
    for name in request.query_params:
        if name != "session_id":
            raise InvalidArgument(
                f"Unknown argument {name[:100]!r}.",
                field=name[:100],
                suggestion="The only argument is session_id.",
            )
    given = request.query_params.getlist("session_id")
    if len(given) > 1 or given == [""]:
        raise InvalidArgument("session_id must be the id of one session.", field="session_id")
    return given[0] if given else None


def _read_last_event_id(request: Request) -> int | None:
    given = request.headers.get(LAST_EVENT_ID)
    if not given:
        return None
    if _NUMBER.fullmatch(given) is None:
        raise InvalidArgument(
            f"{LAST_EVENT_ID} must be an id that this stream has sent, or 0.",
            field=LAST_EVENT_ID,
            suggestion="Send 0 for all messages, or leave the header out to begin now.",
        )
    return int(given)


def _make_heartbeat() -> ServerSentEvent:
    return ServerSentEvent(comment="alive", sep=_NEWLINE)


async def _encode(
    items: AsyncGenerator[Message | Event], *, is_all_sessions: bool
) -> AsyncIterator[ServerSentEvent]:
    # Close it here, not by garbage collection, because closing ends the subscription.
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Message):
                yield _encode_message(item, is_all_sessions=is_all_sessions)
            else:
                yield _encode_hint(item)


def _encode_message(message: Message, *, is_all_sessions: bool) -> ServerSentEvent:
    return ServerSentEvent(
        _to_line(_MESSAGE_ITEM.dump_python(MessageItem.of(message), mode="json")),
        event="message",
        id=str(message.id if is_all_sessions else message.seq),
        sep=_NEWLINE,
    )


def _encode_hint(event: Event) -> ServerSentEvent:
    """Encode a hint: ids only, and no `id`, so that a client resumes from the last message."""
    data: dict[str, str | int | None] = {}
    if event.kind in (EventKind.AGENT_JOINED, EventKind.AGENT_LEFT):
        data["agent_id"] = event.agent_id
    else:
        data["session_id"] = event.session_id
    if event.kind is EventKind.MESSAGES_EXPIRED and event.seq is not None:
        data["first_seq"] = event.seq
    if event.kind is EventKind.MEMORY_CHANGED:
        data |= {"key": event.name, "scope": "shared" if event.owner is None else "private"}
    if event.kind is EventKind.LEASE_CHANGED:
        data["name"] = event.name
    return ServerSentEvent(_to_line(data), event=event.kind.value, sep=_NEWLINE)


def _to_line(value: object) -> str:
    return to_json(value).decode().translate(_LINE_ENDS)
