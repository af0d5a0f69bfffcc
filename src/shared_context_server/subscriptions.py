"""MCP subscriptions: being told that a resource has changed, by whoever may read it.

Modern clients open a `subscriptions/listen` stream; legacy ones, where they have a session
(MCP_SESSIONS=stateful), use resources/subscribe. Either way a notification says only that the caller
would now read something else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from fastmcp import FastMCP
from mcp.server.connection import Connection as McpConnection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from shared_context_server import policy
from shared_context_server.auth.connection import Connection
from shared_context_server.errors import (
    NotFound,
    RateLimited,
    SessionNotFound,
    SharedContextError,
    Unauthenticated,
    Unavailable,
)
from shared_context_server.events.bus import Subscription
from shared_context_server.models import Caller, Event, EventKind, Permission
from shared_context_server.observability.logs import get_logger
from shared_context_server.services.context import Services
from shared_context_server.services.feeds import CHECK_INTERVAL_S
from shared_context_server.settings import McpSessions
from shared_context_server.storage.contract import MessageQuery
from shared_context_server.tools.mcp import SessionBindings, low_level_connection

MAX_STREAMS = 1024  # open listen streams in a process
MAX_URIS = 1000  # of one caller on one stream or session
RETRY_AFTER_S = 5

_SESSION = re.compile(r"session://(?P<session_id>[^/?#]+)(?:/(?P<part>messages|memory|leases))?")
_AGENT_MEMORY = re.compile(r"agent://(?P<agent_id>[^/?#]+)/memory")
_ALWAYS_CHANGING = re.compile(r"(?:clock|sensors)://.*")  # to be read, there is nothing to tell

_LOG_KINDS = frozenset(
    {EventKind.MESSAGE_ADDED, EventKind.SESSION_CLOSED, EventKind.SESSION_DELETED}
)
_KINDS = {
    None: _LOG_KINDS,
    "messages": _LOG_KINDS,
    "memory": frozenset({EventKind.MEMORY_CHANGED, EventKind.SESSION_DELETED}),
    "leases": frozenset({EventKind.LEASE_CHANGED, EventKind.SESSION_DELETED}),
}
_STATE = "shared_context_subscriptions"

_log = get_logger("subscriptions")

Context = ServerRequestContext[Any, Any]


def add_subscriptions(
    mcp: FastMCP[Any], services: Services, bindings: SessionBindings | None
) -> None:
    """Serve subscriptions to the resources of resources.py."""
    subscriptions = Subscriptions(services, bindings)
    low = mcp._mcp_server
    low.add_request_handler(
        "subscriptions/listen", SubscriptionsListenRequestParams, subscriptions.listen
    )
    if services.settings.mcp_sessions is McpSessions.STATEFUL:
        low.add_request_handler(
            "resources/subscribe", SubscribeRequestParams, subscriptions.subscribe
        )
        low.add_request_handler(
            "resources/unsubscribe", UnsubscribeRequestParams, subscriptions.unsubscribe
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """A resource that somebody watches: which events may have changed it."""

    uri: str
    kinds: frozenset[EventKind]
    session_id: str | None
    owner: str | None

    @classmethod
    def parse(cls, uri: str) -> Watched:
        """Raises NotFound for what is no resource."""
        if found := _SESSION.fullmatch(uri):
            return cls(uri, _KINDS[found["part"]], unquote(found["session_id"]), None)
        if found := _AGENT_MEMORY.fullmatch(uri):
            owner = unquote(found["agent_id"])
            return cls(uri, frozenset({EventKind.MEMORY_CHANGED}), None, owner)
        raise NotFound(f"No resource {uri[:200]!r}.", field="uri")

    def is_changed_by(self, event: Event) -> bool:
        """Messages aside, which not everybody sees."""
        if event.session_id != self.session_id or event.kind not in self.kinds:
            return False
        return event.kind is not EventKind.MEMORY_CHANGED or event.owner == self.owner


class Watches:
    """What one caller watches, and how far they have been told of each session's messages."""

    def __init__(self, services: Services, caller: Caller) -> None:
        self._services = services
        self.caller = caller
        self._by_uri: dict[str, Watched] = {}
        self._told_up_to: dict[str, int] = {}

    async def add(self, uri: str) -> None:
        """Watch from now on. Raises what reading the resource would raise."""
        watched = Watched.parse(uri)
        if len(self._by_uri) >= MAX_URIS and uri not in self._by_uri:
            raise RateLimited(RETRY_AFTER_S)
        if watched.session_id is not None:
            session = await self._services.store.sessions.get(watched.session_id)
            policy.require_session_read(self.caller, session)
            self._told_up_to.setdefault(session.id, session.last_seq)
        else:
            policy.require_own_memory(self.caller, watched.owner or "")
        self._by_uri[uri] = watched

    def remove(self, uri: str) -> None:
        self._by_uri.pop(uri, None)

    @property
    def uris(self) -> list[str]:
        return list(self._by_uri)

    @property
    def only_session_id(self) -> str | None:
        """The session that everything watched belongs to, if it is one."""
        sessions = {watched.session_id for watched in self._by_uri.values()}
        return sessions.pop() if len(sessions) == 1 else None

    def wants(self, event: Event) -> bool:
        return any(watched.is_changed_by(event) for watched in self._by_uri.values())

    async def find_changed(self, events: list[Event], *, is_certain: bool) -> list[str]:
        """The URIs of what has changed for the caller; without `is_certain` the events may not tell
        of all."""
        others = [event for event in events if event.kind is not EventKind.MESSAGE_ADDED]
        with_news = await self._find_news(events, is_certain=is_certain)
        return [
            watched.uri
            for watched in tuple(self._by_uri.values())
            if any(watched.is_changed_by(event) for event in others)
            or (watched.session_id in with_news and EventKind.MESSAGE_ADDED in watched.kinds)
            or (not is_certain and EventKind.MESSAGE_ADDED not in watched.kinds)
        ]

    async def begin_anew(self) -> list[str]:
        """All URIs: the store was set back, and whatever they show may be another now."""
        for session_id in tuple(self._told_up_to):
            try:
                session = await self._services.store.sessions.get(session_id)
            except SessionNotFound:
                self._told_up_to[session_id] = 0
            else:
                self._told_up_to[session_id] = session.last_seq
        return self.uris

    async def _find_news(self, events: Iterable[Event], *, is_certain: bool) -> set[str]:
        """The sessions with messages that the caller sees and has not been told of."""
        newest: dict[str, int] = {}
        for event in events:
            if event.kind is EventKind.MESSAGE_ADDED and event.session_id in self._told_up_to:
                known = newest.get(event.session_id, 0)
                newest[event.session_id] = max(known, event.seq or 0)
        with_news: set[str] = set()
        for session_id in newest if is_certain else tuple(self._told_up_to):
            with suppress(SessionNotFound):
                if await self._has_news(session_id, newest[session_id] if is_certain else None):
                    with_news.add(session_id)
        return with_news

    async def _has_news(self, session_id: str, newest: int | None) -> bool:
        if newest is None:
            return await self._look(session_id)
        is_seen = False
        while self._told_up_to[session_id] < newest:
            piece = await self._services.shared_reads.read(session_id, self._told_up_to[session_id])
            policy.require_session_read(self.caller, piece.session)
            if not piece.messages:
                return is_seen or await self._look(session_id)
            is_seen |= any(policy.can_see_message(self.caller, m) for m in piece.messages)
            self._told_up_to[session_id] = piece.messages[-1].seq
        return is_seen

    async def _look(self, session_id: str) -> bool:
        query = MessageQuery(limit=1, after_seq=self._told_up_to[session_id], is_counted=False)
        guard = partial(policy.require_session_read, self.caller)
        page = await self._services.store.messages.list_visible(
            session_id, self.caller, query, guard
        )
        self._told_up_to[session_id] = max(self._told_up_to[session_id], page.last_seq)
        return bool(page.messages)


class Subscriptions:
    """The handlers of one server."""

    def __init__(self, services: Services, bindings: SessionBindings | None) -> None:
        self._services = services
        self._bindings = bindings
        self._open_count = 0

    async def listen(
        self, context: Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one stream. What always changes is left out of what is acknowledged; anything else
        that may not be watched refuses the whole request."""
        requested = params.notifications
        uris = [
            uri
            for uri in requested.resource_subscriptions or ()
            if _ALWAYS_CHANGING.fullmatch(uri) is None
        ]
        caller = await self._identify(context)
        with self._take_slot(caller):
            return await self._listen(context, params, uris, caller)

    async def _listen(
        self,
        context: Context,
        params: SubscriptionsListenRequestParams,
        uris: list[str],
        caller: Caller,
    ) -> SubscriptionsListenResult:
        requested = params.notifications
        watches = Watches(self._services, caller)
        for uri in uris:
            await _add(watches, uri)
        honored = requested.model_copy(update={"resource_subscriptions": watches.uris or None})
        if self._open_count >= MAX_STREAMS:
            raise _to_mcp_error(Unavailable("Too many streams are open.", wait_s=RETRY_AFTER_S))
        self._open_count += 1
        try:
            return await self._serve(
                watches, context, params.model_copy(update={"notifications": honored})
            )
        finally:
            self._open_count -= 1

    async def _serve(
        self, watches: Watches, context: Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        # One of each for a stream: who is told of what depends on who listens.
        changes = InMemorySubscriptionBus()
        handler = ListenHandler(changes)

        async def tell(uri: str) -> None:
            await changes.publish(ResourceUpdated(uri))

        with self._services.bus.subscribe(
            watches.wants, session_id=watches.only_session_id
        ) as subscription:
            telling = asyncio.create_task(self._tell(watches, subscription, tell))
            telling.add_done_callback(lambda _: handler.close())
            try:
                return await handler(context, params)
            finally:
                telling.cancel()

    def _take_slot(self, caller: Caller) -> ExitStack:
        """A place for one stream, to be closed with it. Raises the protocol's error."""
        slot = ExitStack()
        try:
            slot.enter_context(self._services.slots.take(caller))
        except SharedContextError as exc:
            raise _to_mcp_error(exc) from exc
        return slot

    async def subscribe(self, context: Context, params: SubscribeRequestParams) -> EmptyResult:
        """Legacy: notify on the session's own stream from now on."""
        caller = await self._identify(context)
        connection = context.session._connection
        by_caller: dict[Caller, Watches] = connection.state.setdefault(_STATE, {})
        watches = by_caller.get(caller)
        if watches is not None:
            await _add(watches, params.uri)
            return EmptyResult()
        watches = Watches(self._services, caller)
        with ExitStack() as stack:
            stack.enter_context(self._take_slot(caller))
            await _add(watches, params.uri)
            slot = stack.pop_all()
        by_caller[caller] = watches
        telling = asyncio.create_task(self._notify(watches, connection))

        def forget(_task: asyncio.Task[None]) -> None:
            by_caller.pop(caller, None)
            slot.close()

        telling.add_done_callback(forget)
        connection.exit_stack.callback(telling.cancel)
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """Legacy: stop notifying, whoever of the session has subscribed."""
        by_caller: dict[Caller, Watches] = context.session._connection.state.get(_STATE, {})
        for watches in by_caller.values():
            watches.remove(params.uri)
        return EmptyResult()

    async def _notify(self, watches: Watches, connection: McpConnection) -> None:
        with self._services.bus.subscribe(watches.wants) as subscription:
            await self._tell(watches, subscription, connection.send_resource_updated)

    async def _tell(
        self,
        watches: Watches,
        subscription: Subscription,
        tell: Callable[[str], Awaitable[None]],
    ) -> None:
        """Until the server stops, the storage fails or the credential ends: clients that come back
        read anew."""
        try:
            while True:
                self._services.presence.note(watches.caller)
                events = await subscription.wait(CHECK_INTERVAL_S)
                is_certain = not subscription.take_missed()
                if subscription.take_set_back():
                    changed = await watches.begin_anew()
                else:
                    changed = await watches.find_changed(events, is_certain=is_certain)
                await self._services.identity.require_current(watches.caller)
                for uri in changed:
                    await tell(uri)
        except (Unavailable, Unauthenticated) as exc:
            _log.debug("a subscription ends", reason=exc.message)
        except Exception:  # noqa: BLE001 - a task of its own: the log is where it surfaces
            _log.exception("a subscription failed")

    async def _identify(self, context: Context) -> Caller:
        """Who asks, as everywhere over MCP, and may read at all."""
        connection = await low_level_connection(context, self._bindings)
        try:
            return _require_reader(connection)
        except SharedContextError as exc:
            raise _to_mcp_error(exc) from exc


def _require_reader(connection: Connection) -> Caller:
    if connection.refused is not None:
        raise connection.refused
    policy.require_permission(connection.caller, Permission.READ)
    return connection.caller


async def _add(watches: Watches, uri: str) -> None:
    try:
        await watches.add(uri)
    except NotFound as exc:
        message = f"Resource not found: {uri[:200]!r}"
        raise MCPError(INVALID_PARAMS, message, {"uri": uri}) from exc
    except SharedContextError as exc:
        raise _to_mcp_error(exc) from exc


def _to_mcp_error(error: SharedContextError) -> MCPError:
    """The protocol's error, our shape in its data."""
    return MCPError(INVALID_PARAMS, error.message, error.body())
