"""MCP subscriptions: notify callers when resources that they may read change.

Modern clients open a `subscriptions/listen` stream. Older ones that have a session
(MCP_SESSIONS=stateful) use resources/subscribe. Either way a notification says only that reading
the resource would now give something else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from fastmcp import FastMCP
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
    CursorLost,
    NotFound,
    RateLimited,
    SessionNotFound,
    SharedContextError,
    Unauthenticated,
    Unavailable,
)
from shared_context_server.events.bus import News, Subscription
from shared_context_server.models import Caller, Event, EventKind, Permission, Session
from shared_context_server.observability.logs import get_logger
from shared_context_server.services.context import Services
from shared_context_server.services.follow import Follow, SessionCursor
from shared_context_server.settings import McpSessions
from shared_context_server.tools.mcp import SessionBindings, low_level_connection

MAX_STREAMS = 1024  # open listen streams in a process
MAX_URIS = 1000  # of one caller on one stream or session
RETRY_AFTER_S = 5

_SESSION = re.compile(
    r"session://(?P<session_id>[^/?#]+)(?:/(?P<part>messages|memory|leases|tasks))?"
)
_SESSION_VALUE = re.compile(r"session://(?P<session_id>[^/?#]+)/memory/(?P<key>[^/?#]+)")
_AGENT_MEMORY = re.compile(r"agent://(?P<agent_id>[^/?#]+)/memory(?:/(?P<key>[^/?#]+))?")
_ALWAYS_CHANGING = re.compile(r"(?:clock|sensors)://.*")  # to be read, there is nothing to notify

_LOG_KINDS = frozenset(
    {
        EventKind.MESSAGE_ADDED,
        EventKind.MESSAGES_EXPIRED,
        EventKind.SESSION_CLOSED,
        EventKind.SESSION_DELETED,
    }
)
_KINDS = {
    None: _LOG_KINDS,
    "messages": _LOG_KINDS,
    "memory": frozenset({EventKind.MEMORY_CHANGED, EventKind.SESSION_DELETED}),
    "leases": frozenset({EventKind.LEASE_CHANGED, EventKind.SESSION_DELETED}),
    "tasks": frozenset(
        {EventKind.MESSAGE_ADDED, EventKind.SESSION_DELETED}
    ),  # tells of each change
}
_STATE = "shared_context_subscriptions"

_log = get_logger("subscriptions")

Context = ServerRequestContext[Any, Any]


def add_subscriptions(
    mcp: FastMCP[Any], services: Services, bindings: SessionBindings | None
) -> None:
    """Serve subscriptions to the resources of resources.py."""
    handlers = SubscriptionHandlers(services, bindings)
    low = mcp._mcp_server
    low.add_request_handler(
        "subscriptions/listen", SubscriptionsListenRequestParams, handlers.listen
    )
    if services.settings.mcp_sessions is McpSessions.STATEFUL:
        low.add_request_handler("resources/subscribe", SubscribeRequestParams, handlers.subscribe)
        low.add_request_handler(
            "resources/unsubscribe", UnsubscribeRequestParams, handlers.unsubscribe
        )


@dataclass(frozen=True, slots=True)
class SubscribedResource:
    """A resource that a caller subscribes to, and the events that may have changed it. `key`: of one
    memory entry."""

    uri: str
    kinds: frozenset[EventKind]
    session_id: str | None
    owner: str | None
    key: str | None = None

    @classmethod
    def parse(cls, uri: str) -> SubscribedResource:
        """Return the resource of a URI. Raises NotFound for an unknown one."""
        if found := _SESSION.fullmatch(uri):
            return cls(uri, _KINDS[found["part"]], unquote(found["session_id"]), None)
        if found := _SESSION_VALUE.fullmatch(uri):
            session_id = unquote(found["session_id"])
            return cls(uri, _KINDS["memory"], session_id, None, unquote(found["key"]))
        if found := _AGENT_MEMORY.fullmatch(uri):
            owner, kinds = unquote(found["agent_id"]), frozenset({EventKind.MEMORY_CHANGED})
            key = None if found["key"] is None else unquote(found["key"])
            return cls(uri, kinds, None, owner, key)
        raise NotFound(f"There is no resource {uri[:200]!r}.", field="uri")

    @property
    def shows_messages(self) -> bool:
        """Whether it contains messages, of which the caller may not see all."""
        return EventKind.MESSAGE_ADDED in self.kinds

    def is_changed_by(self, event: Event) -> bool:
        """Whether the event changes the resource for a caller who sees all messages."""
        if event.session_id != self.session_id or event.kind not in self.kinds:
            return False
        if event.kind is not EventKind.MEMORY_CHANGED:
            return True
        return event.owner == self.owner and self.key in (None, event.name)


class SubscribedResources:
    """The resources that one caller subscribes to, with a cursor for each session."""

    def __init__(self, services: Services, caller: Caller) -> None:
        self._services = services
        self.caller = caller
        self._by_uri: dict[str, SubscribedResource] = {}
        self._cursors: dict[str, SessionCursor] = {}

    async def add(self, uri: str) -> None:
        """Subscribe from now on. Raises what reading the resource raises."""
        resource = SubscribedResource.parse(uri)
        if len(self._by_uri) >= MAX_URIS and uri not in self._by_uri:
            raise RateLimited(RETRY_AFTER_S)
        session_id = resource.session_id
        if session_id is None:
            policy.require_own_memory(self.caller, resource.owner or "")
            self._by_uri[uri] = resource
            return
        policy.require_session_read(self.caller, await self._get_session(session_id))
        self._by_uri[uri] = resource
        if session_id not in self._cursors:
            # Read again, now that events are delivered: what comes after this end has an event.
            session = await self._get_session(session_id)
            self._cursors.setdefault(session_id, self._open_cursor(session_id, session.last_seq))

    async def _get_session(self, session_id: str) -> Session:
        return await self._services.store.sessions.get(session_id)

    def remove(self, uri: str) -> None:
        self._by_uri.pop(uri, None)

    @property
    def uris(self) -> list[str]:
        return list(self._by_uri)

    def wants(self, event: Event) -> bool:
        return any(resource.is_changed_by(event) for resource in self._by_uri.values())

    async def find_changed(self, news: News) -> list[str]:
        """Return the URIs of the resources that have changed for the caller, or may have."""
        if news.is_set_back:
            for session_id in tuple(self._cursors):
                await self._restart_cursor(session_id)
            return self.uris
        others = [event for event in news.events if event.kind is not EventKind.MESSAGE_ADDED]
        with_messages = await self._find_sessions_with_messages(news)
        return [
            resource.uri
            for resource in tuple(self._by_uri.values())
            if any(resource.is_changed_by(event) for event in others)
            or (resource.shows_messages and resource.session_id in with_messages)
            or (news.needs_resync and not resource.shows_messages)
        ]

    async def _find_sessions_with_messages(self, news: News) -> set[str]:
        """Return the sessions with new messages that the caller may see."""
        added_to = {e.session_id for e in news.events if e.kind is EventKind.MESSAGE_ADDED}
        found: set[str] = set()
        for session_id, cursor in tuple(self._cursors.items()):
            if news.needs_resync or session_id in added_to:
                with suppress(SessionNotFound):
                    if await self._has_messages(cursor, news):
                        found.add(session_id)
        return found

    async def _has_messages(self, cursor: SessionCursor, news: News) -> bool:
        try:
            messages = await cursor.read(news)
            while cursor.has_more and not messages:
                messages = await cursor.read(news)
        except CursorLost:
            await self._restart_cursor(cursor.session_id)
            return True
        cursor.skip_to_end()  # one is enough for a notification
        return bool(messages)

    async def _restart_cursor(self, session_id: str) -> None:
        """Continue from the present end of the log."""
        try:
            last_seq = (await self._get_session(session_id)).last_seq
        except SessionNotFound:
            last_seq = 0
        self._cursors[session_id] = self._open_cursor(session_id, last_seq)

    def _open_cursor(self, session_id: str, after_seq: int) -> SessionCursor:
        return SessionCursor(self._services, self.caller, session_id, after_seq, limit=1)


class SubscriptionHandlers:
    """The handlers of MCP's subscription methods, for one server."""

    def __init__(self, services: Services, bindings: SessionBindings | None) -> None:
        self._services = services
        self._bindings = bindings
        self._open_count = 0

    async def listen(
        self, context: Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one stream. Resources that always change are left out of the acknowledgement. Any
        other resource that cannot be watched refuses the whole request."""
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
        resources = SubscribedResources(self._services, caller)
        with self._services.bus.subscribe(
            resources.wants, session_id=_find_only_session(uris)
        ) as subscription:
            for uri in uris:
                await _add(resources, uri)
            honored = requested.model_copy(
                update={"resource_subscriptions": resources.uris or None}
            )
            if self._open_count >= MAX_STREAMS:
                raise _to_mcp_error(Unavailable("Too many streams are open.", wait_s=RETRY_AFTER_S))
            self._open_count += 1
            try:
                return await self._serve(
                    resources,
                    subscription,
                    context,
                    params.model_copy(update={"notifications": honored}),
                )
            finally:
                self._open_count -= 1

    async def _serve(
        self,
        resources: SubscribedResources,
        subscription: Subscription,
        context: Context,
        params: SubscriptionsListenRequestParams,
    ) -> SubscriptionsListenResult:
        # One of each for a stream, because notifications depend on the listener's rights.
        changes = InMemorySubscriptionBus()
        handler = ListenHandler(changes)

        async def notify(uri: str) -> None:
            await changes.publish(ResourceUpdated(uri))

        notifying = asyncio.create_task(self._notify(resources, subscription, notify))
        notifying.add_done_callback(lambda _: handler.close())
        try:
            closed = await handler(context, params)
        finally:
            notifying.cancel()
        if notifying.done() and not notifying.cancelled() and (ended := notifying.result()):
            raise _to_mcp_error(ended)
        return closed

    def _take_slot(self, caller: Caller) -> ExitStack:
        """Take a slot for one stream, to be closed with it. Raises the protocol's error."""
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
        by_caller: dict[Caller, SubscribedResources] = connection.state.setdefault(_STATE, {})
        resources = by_caller.get(caller)
        if resources is not None:
            await _add(resources, params.uri)
            return EmptyResult()
        resources = SubscribedResources(self._services, caller)
        with ExitStack() as stack:
            stack.enter_context(self._take_slot(caller))
            subscription = stack.enter_context(self._services.bus.subscribe(resources.wants))
            await _add(resources, params.uri)
            held = stack.pop_all()
        by_caller[caller] = resources
        notifying = asyncio.create_task(
            self._notify_session(resources, subscription, connection.send_resource_updated)
        )

        def forget(_task: asyncio.Task[None]) -> None:
            by_caller.pop(caller, None)
            held.close()

        notifying.add_done_callback(forget)
        connection.exit_stack.callback(notifying.cancel)
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """Legacy: stop notifying, whoever in the session has subscribed."""
        by_caller: dict[Caller, SubscribedResources] = context.session._connection.state.get(
            _STATE, {}
        )
        for resources in by_caller.values():
            resources.remove(params.uri)
        return EmptyResult()

    async def _notify_session(
        self,
        resources: SubscribedResources,
        subscription: Subscription,
        notify: Callable[[str], Awaitable[None]],
    ) -> None:
        """Notify a legacy session. It cannot be told that its subscriptions end with the credential,
        so all resources are notified a last time: reading them says it."""
        if await self._notify(resources, subscription, notify) is None:
            return
        try:
            for uri in resources.uris:
                await notify(uri)
        except Exception:  # noqa: BLE001 - a task of its own: the log is where it surfaces
            _log.exception("a subscription failed")

    async def _notify(
        self,
        resources: SubscribedResources,
        subscription: Subscription,
        notify: Callable[[str], Awaitable[None]],
    ) -> Unauthenticated | None:
        """Notify until the server stops, the storage fails or the credential ends: the last is
        returned. Clients that come back read again."""
        follow = Follow(self._services, resources.caller, subscription, begins_with_look=False)
        try:
            async for news in follow:
                changed = await resources.find_changed(news)
                await follow.require_current()
                for uri in changed:
                    await notify(uri)
        except Unauthenticated as exc:
            return exc
        except Unavailable as exc:
            _log.debug("a subscription ends", reason=exc.message)
        except Exception:  # noqa: BLE001 - a task of its own: the log is where it surfaces
            _log.exception("a subscription failed")
        return None

    async def _identify(self, context: Context) -> Caller:
        """Return the caller, who has to be allowed to read."""
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


def _find_only_session(uris: Iterable[str]) -> str | None:
    """Return the session that all the resources belong to, if it is the same one."""
    sessions: set[str | None] = set()
    with suppress(NotFound):  # will be refused when it is added
        for uri in uris:
            sessions.add(SubscribedResource.parse(uri).session_id)
    return sessions.pop() if len(sessions) == 1 else None


async def _add(resources: SubscribedResources, uri: str) -> None:
    try:
        await resources.add(uri)
    except NotFound as exc:
        message = f"Resource not found: {uri[:200]!r}"
        raise MCPError(INVALID_PARAMS, message, {"uri": uri}) from exc
    except SharedContextError as exc:
        raise _to_mcp_error(exc) from exc


def _to_mcp_error(error: SharedContextError) -> MCPError:
    """Return the protocol's error with our error shape in its data."""
    return MCPError(INVALID_PARAMS, error.message, error.body())
