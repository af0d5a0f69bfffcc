"""Read a session's log for people: filtered by more than the store has indexes for, newest first, and
without marking anything as read."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import MessageNotFound
from shared_context_server.models import Ack, Caller, Message, Visibility
from shared_context_server.services.context import Services
from shared_context_server.storage.contract import MessageQuery

SCANNED_AT_ONCE = 500  # messages of one read, when a filter is applied here
SCAN_LIMIT_S = 0.4  # after that a page tells where to go on
EXPORTED_AT_ONCE = 500

REPLIES = "reply"
TO_ACKNOWLEDGE = "needs-ack"


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which messages of a log are shown; all conditions must hold, None and "" do not filter.

    `text` is in the content, in any case. `kind`: what the message says of itself: the metadata's
    `kind` or `type`, or a member of this name that is true or text, as {"decision": true}; or REPLIES
    or TO_ACKNOWLEDGE. `thread`: a message's id, for its replies and itself.
    """

    sender: str | None = None
    visibility: Visibility | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    text: str = ""
    kind: str = ""
    thread: int | None = None

    @property
    def is_scanned(self) -> bool:
        """Whether messages have to be read to know whether they match."""
        return bool(self.text or self.kind)

    @property
    def is_empty(self) -> bool:
        return self == LogFilter()

    def matches(self, message: Message) -> bool:
        """Whether the message is shown."""
        return (
            (self.sender is None or message.sender == self.sender)
            and (self.visibility is None or message.visibility is self.visibility)
            and (self.start_time is None or message.timestamp >= self.start_time)
            and (self.end_time is None or message.timestamp <= self.end_time)
            and (not self.text or self.text.casefold() in message.content.casefold())
            and (not self.kind or has_kind(message, self.kind))
            and (self.thread is None or self.thread in (message.id, message.parent_message_id))
        )


@dataclass(frozen=True, slots=True)
class LogPage:
    """Messages in the order of the log. `older_before`: the seq before which the next page begins; None
    at the beginning of the log. `is_cut`: the time for looking through the log was over, so older
    messages may match although the page is not full. `last_seq`: the newest seq of the log."""

    messages: list[Message]
    older_before: int | None
    is_cut: bool
    last_seq: int


def has_kind(message: Message, kind: str) -> bool:
    """Whether the message is of this kind; see LogFilter."""
    if kind == REPLIES:
        return message.parent_message_id is not None
    if kind == TO_ACKNOWLEDGE:
        return message.ack is Ack.REQUIRED
    metadata = message.metadata
    mark = metadata.get(kind)
    return (
        kind in (metadata.get("kind"), metadata.get("type"))
        or mark is True
        or (isinstance(mark, str) and bool(mark))
    )


async def read_page(
    services: Services,
    caller: Caller,
    session_id: str,
    wanted: LogFilter,
    *,
    before_seq: int | None,
    limit: int,
) -> LogPage:
    """Return the newest messages before `before_seq` (None: of all) that match and that the caller may
    see. Raises SessionNotFound."""
    guard = partial(policy.require_session_read, caller)
    ends_at = time.monotonic() + SCAN_LIMIT_S
    found: list[Message] = []
    while True:
        query = MessageQuery(
            limit=SCANNED_AT_ONCE if wanted.is_scanned else limit,
            before_seq=before_seq,
            sender=wanted.sender,
            visibility=wanted.visibility,
            start_time=wanted.start_time,
            end_time=wanted.end_time,
            parent_message_id=wanted.thread,
            is_counted=False,
        )
        page = await services.store.messages.list_visible(session_id, caller, query, guard)
        for message in reversed(page.messages):
            before_seq = message.seq
            if wanted.matches(message):
                found.append(message)
                if len(found) == limit:
                    break
        is_more = page.has_more or (page.messages and page.messages[0].seq != before_seq)
        is_late = time.monotonic() >= ends_at
        if len(found) >= limit or not is_more or is_late or not wanted.is_scanned:
            older_before = before_seq if is_more else None
            is_cut = is_late and len(found) < limit and older_before is not None
            if wanted.thread is not None and older_before is None:
                try:
                    found.append(await get_message(services, caller, session_id, wanted.thread))
                except MessageNotFound:
                    if not found:  # the replies to a message that was removed are still there
                        raise
            return LogPage(found[::-1], older_before, is_cut, page.last_seq)


async def read_all(
    services: Services, caller: Caller, session_id: str
) -> AsyncGenerator[Sequence[Message]]:
    """Yield all messages that the caller may see, in the order of the log, page by page. It ends where
    the log ended at the beginning, and with the caller's credential."""
    guard = partial(policy.require_session_read, caller)
    after_seq, last_seq = 0, None
    while last_seq is None or after_seq < last_seq:
        query = MessageQuery(limit=EXPORTED_AT_ONCE, after_seq=after_seq, is_counted=False)
        page = await services.store.messages.list_visible(session_id, caller, query, guard)
        await services.identity.require_current(caller)
        if last_seq is None:
            last_seq = page.last_seq
        if not page.messages:
            return
        after_seq = page.messages[-1].seq
        yield page.messages


async def get_message(
    services: Services, caller: Caller, session_id: str, message_id: int
) -> Message:
    """Return one message. Raises MessageNotFound if the caller may not see it."""
    guard = partial(policy.require_session_read, caller)
    return await services.store.messages.get(session_id, message_id, caller, guard)


async def find_parents(
    services: Services, caller: Caller, messages: Sequence[Message]
) -> dict[int, Message]:
    """Return the messages that these reply to, by id, as far as the caller may see them."""
    known = {message.id: message for message in messages}
    wanted = {m.parent_message_id for m in messages if m.parent_message_id is not None}
    missing = sorted(wanted - known.keys())
    if missing:
        read = await services.store.messages.list_by_ids(caller, missing)
        known |= {message.id: message for message in read}
    return {id_: known[id_] for id_ in wanted if id_ in known}
