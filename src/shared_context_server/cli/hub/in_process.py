"""Calls tools on a data dir without a running server: opens the parts of one in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import TypeAdapter

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.local_clients import connect_local_client
from shared_context_server.cli.banner import without_password
from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.hub.calls import Answer, Call, make_failure
from shared_context_server.cli.hub.place import AGENT_TYPE
from shared_context_server.cli.options import load_options
from shared_context_server.environment import EnvironmentOwner
from shared_context_server.errors import SharedContextError
from shared_context_server.models import Event, EventKind, Message
from shared_context_server.parts import Parts, open_parts
from shared_context_server.remote import exits
from shared_context_server.remote.events import LogSetBack, StreamEvent
from shared_context_server.services import feeds
from shared_context_server.services.fleet import get_fleet
from shared_context_server.settings import LogLevel, Settings
from shared_context_server.storage import find_schema_status
from shared_context_server.tools.fleet import describe_fleet
from shared_context_server.tools.messages import MessageItem

_MESSAGE = TypeAdapter(MessageItem)
_NAME_OPTIONS = ("--as", "--as")
_MAX_WAITING = 1000  # messages that were read and are not printed yet
_END_S = 5.0


class LocalHub:
    """The parts of a server, in a thread of this process. Others may use the data dir meanwhile."""

    def __init__(
        self, portal: BlockingPortal, parts: Parts, connection: Connection, place: str
    ) -> None:
        self._portal = portal
        self._parts = parts
        self._connection = connection
        self.place = place

    @property
    def agent_id(self) -> str:
        return self._connection.caller.agent_id

    def call_all(self, calls: Sequence[Call]) -> list[Answer]:
        return [self._call(tool, arguments) for tool, arguments in calls]

    def _call(self, tool: str, arguments: dict[str, Any]) -> Answer:
        run = partial(self._parts.dispatcher.call, tool, arguments, self._connection)
        answer: Answer = json.loads(self._portal.call(run).json())
        return answer

    def get_fleet(self, limit: int, cursor: str | None) -> Answer:
        services, caller = self._parts.services, self._connection.caller
        read = partial(get_fleet, services, caller, limit=limit, cursor=cursor)
        return describe_fleet(self._portal.call(read))

    @contextmanager
    def follow(
        self, session_id: str | None, last_id: int | None, note: Callable[[str], None]
    ) -> Generator[Iterator[StreamEvent]]:
        feed = self._portal.call(self._open_feed, session_id, last_id)
        stream = feeds.stream(self._parts.services, self._connection.caller, feed)
        items = _Items()
        pumping = self._portal.start_task_soon(items.take_all, stream)
        try:
            yield self._events(items, by_id=session_id is None)
        finally:
            pumping.cancel()
            items.has_ended.wait(_END_S)

    async def _open_feed(self, session_id: str | None, last_id: int | None) -> feeds.Feed:
        services, caller = self._parts.services, self._connection.caller
        if session_id is None:
            return await feeds.open_all_sessions_feed(services, caller, last_id)
        return await feeds.open_session_feed(services, caller, session_id, last_id)

    def _events(self, items: _Items, *, by_id: bool) -> Iterator[StreamEvent]:
        yield StreamEvent("opened", 0, {})
        while (item := items.get()) is not None:
            if isinstance(item, Message):
                shown = _MESSAGE.dump_python(MessageItem.of(item), mode="json")
                yield StreamEvent("message", item.id if by_id else item.seq, shown)
            elif item.kind is EventKind.LOG_SET_BACK:
                raise LogSetBack
            else:
                yield StreamEvent(item.kind.value, 0, {"session_id": item.session_id})


class _Items:
    """Hands what a stream yields over to another thread, a bounded number at a time."""

    def __init__(self) -> None:
        self._queue: Queue[Message | Event | None] = Queue()
        self._free = asyncio.Semaphore(_MAX_WAITING)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.has_ended = threading.Event()

    async def take_all(self, stream: AsyncGenerator[Message | Event]) -> None:
        """Take everything, until the stream ends or this is cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            async with aclosing(stream):
                async for item in stream:
                    await self._put(item)
            await self._put(None)
        finally:
            self.has_ended.set()

    async def _put(self, item: Message | Event | None) -> None:
        await self._free.acquire()
        self._queue.put(item)

    def get(self) -> Message | Event | None:
        """The next item; None at the end of the stream."""
        item = self._queue.get()
        if item is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._free.release)
        return item


@contextmanager
def open_local_hub(data_dir: Path, agent_id: str) -> Generator[LocalHub]:
    """Open the store of a data dir for a with block. Creates and migrates nothing: raises CommandFailed
    if the database is missing or has an older schema, and ConfigurationError as `serve` does."""
    settings = load_options(
        EnvironmentOwner.SERVER, {"data_dir": data_dir, "log_level": LogLevel.WARNING}
    )
    _require_schema(settings)
    place = str(data_dir)
    if settings.database_url is not None:
        place = without_password(settings.database_url)
    failure: BaseException | None = None
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_parts(settings)) as parts,
    ):
        try:
            yield LocalHub(portal, parts, portal.call(_connect, parts, agent_id), place)
        # Raised below: the task groups of an open server would wrap it.
        except BaseException as exc:  # noqa: BLE001 - see above
            failure = exc
    if isinstance(failure, SharedContextError):
        raise make_failure(failure.message, failure.code, failure.hint) from failure
    if failure is not None:
        raise failure


def _require_schema(settings: Settings) -> None:
    schema = find_schema_status(settings)
    if schema.current == 0:
        raise CommandFailed(
            f"There is no database at {without_password(settings.storage_url)}.",
            "The first start of `scs serve` makes it; --data-dir names another one.",
        )
    if schema.current < schema.latest:
        raise CommandFailed(
            f"The database has schema {schema.current} of {schema.latest}.",
            "Make a backup (`scs backup FILE`), then run `scs migrate`, or start the server.",
        )


async def _connect(parts: Parts, agent_id: str) -> Connection:
    """The connection of the operator, with the admin's key, which this process can read."""
    connection = await connect_local_client(
        parts.services.identity,
        agent_id=agent_id,
        agent_type=AGENT_TYPE,
        fields=_NAME_OPTIONS,
        is_admin=True,
    )
    if connection.refused is not None:
        raise CommandFailed(connection.refused.message, exit_code=exits.USAGE)
    return connection
