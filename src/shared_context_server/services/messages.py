"""Messages: add, read and page through them, and store how far an agent has read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import CursorLost, InvalidArgument, SharedContextError
from shared_context_server.models import (
    Ack,
    Caller,
    Event,
    EventKind,
    JsonObject,
    Message,
    Visibility,
)
from shared_context_server.services.context import Services
from shared_context_server.services.fingerprint import fingerprint
from shared_context_server.services.quotas import Growth, refuse_after
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.codec import encode_json
from shared_context_server.storage.contract import (
    AddedMessage,
    Fence,
    MessagePage,
    MessageQuery,
    NewMessage,
)
from shared_context_server.storage.rules.messages import to_appended
from shared_context_server.storage.rules.pages import ITEM_OVERHEAD_BYTES, count_bytes, page_budget


@dataclass(frozen=True, slots=True)
class ReadPosition:
    seq: int
    unread: int


async def add_message(
    services: Services,
    caller: Caller,
    *,
    session_id: str,
    content: str,
    visibility: Visibility,
    recipients: Sequence[str],
    metadata: JsonObject,
    parent_message_id: int | None,
    idempotency_key: str | None,
    fence: Fence | None = None,
    requires_ack: bool = False,
) -> AddedMessage:
    """Append a message durably to the session's log. Raises LeaseLost if the caller does not hold
    `fence`."""
    distinct = tuple(dict.fromkeys(recipients))
    if wrong := await services.identity.names.check_agent_ids(distinct, "recipients"):
        raise wrong
    if requires_ack and visibility is Visibility.PRIVATE and not set(distinct) - {caller.agent_id}:
        raise InvalidArgument(
            "requires_ack: nobody else sees a private message without other recipients.",
            field="requires_ack",
            suggestion="Name in recipients who shall acknowledge the message.",
        )
    new = NewMessage(
        session_id=session_id,
        sender=caller,
        content=content,
        visibility=visibility,
        recipients=distinct,
        metadata=metadata,
        parent_message_id=parent_message_id,
        created_at=utc_now(),
        idempotency_key=idempotency_key,
        fingerprint=""
        if idempotency_key is None
        else fingerprint(
            *(content, visibility.value, sorted(distinct), metadata, parent_message_id),
            *(["requires_ack"] if requires_ack else []),
        ),
        fence=fence,
        ack=Ack.REQUIRED if requires_ack else Ack.NONE,
    )
    guard = partial(policy.require_session_write, caller)
    async with services.quotas.admit(caller, session_id, partial(measure_growth, new)) as errors:
        added = await services.store.messages.append(new, refuse_after(guard, errors))
    if not added.duplicate:
        announce(services, to_appended(new, added))
    return added


def measure_growth(new: NewMessage) -> Growth:
    """Return what storing the message adds."""
    texts = (new.content, encode_json(new.metadata), encode_json(new.recipients))
    return Growth(messages=1, bytes=sum(map(count_bytes, texts)))


async def find_unknown_recipients(
    services: Services, session_id: str, recipients: Sequence[str]
) -> list[str]:
    """Return those recipients that have never called the server and are not invited to the session:
    misspelled names, perhaps. No query if there are no recipients."""
    if not recipients:
        return []
    names = list(dict.fromkeys(recipients))
    try:
        known = await services.store.agents.find_known(names)
        if len(known) == len(names):
            return []
        session = await services.store.sessions.get(session_id)
    except SharedContextError:
        return []  # the message is stored, so this must not fail the call
    expected = known | services.presence.list_noted() | {session.created_by, *session.invited}
    return [name for name in names if name not in expected]


def announce(services: Services, message: Message) -> None:
    """Tell whoever waits for it, or is mentioned, of a message that was committed."""
    services.bus.publish(Event(EventKind.MESSAGE_ADDED, message.session_id, seq=message.seq))
    if services.mentions.wants(message.content, message.recipients):
        services.mentions.note(message)
    if services.bus.has_subscribers(message.session_id):
        services.shared_reads.keep_committed(message)


async def get_messages(
    services: Services, caller: Caller, session_id: str, query: MessageQuery
) -> MessagePage:
    """Return one page of the messages that the caller may see, by seq. Raises CursorLost if the log
    ends before after_seq."""
    page = await services.store.messages.list_visible(
        session_id, caller, query, partial(policy.require_session_read, caller)
    )
    require_cursor(page, query.after_seq)
    services.mentions.clear_page(caller, session_id, page.messages)
    return page


def require_cursor(page: MessagePage, after_seq: int | None) -> None:
    """Raise CursorLost if the cursor is after the end of the log. Its reader has read messages that
    no longer exist, and would miss the ones that take their seqs."""
    if after_seq is not None and after_seq > page.last_seq:
        raise CursorLost(after_seq)


def cut_page(found: list[Message], limit: int) -> list[Message]:
    """Return as many of the first messages as fit on a page, at least one."""
    left = page_budget(limit)
    for count, message in enumerate(found[:limit]):
        left -= weigh_message(message)
        if left < 0 and count:
            return found[:count]
    return found[:limit]


def weigh_message(message: Message) -> int:
    """Return the size of a message in bytes, as pages count it."""
    texts = (message.content, encode_json(message.metadata), *message.recipients)
    return ITEM_OVERHEAD_BYTES + sum(map(count_bytes, texts))


def next_after_seq(page: MessagePage, query: MessageQuery) -> int:
    """Return the cursor for the next call: the last message of the page, else the cursor given, or
    the last message that was removed if that is later."""
    if page.messages:
        return page.messages[-1].seq
    return max(query.after_seq or 0, page.first_seq - 1)


async def mark_read(services: Services, caller: Caller, session_id: str, seq: int) -> ReadPosition:
    """Move the caller's stored cursor forward; it never moves back."""
    stored, unread = await services.store.sessions.set_cursor(
        session_id, caller, seq, partial(policy.require_session_read, caller)
    )
    services.mentions.clear_up_to(caller, session_id, stored)
    return ReadPosition(stored, unread)
