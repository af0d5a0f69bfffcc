"""Acknowledgements: readers confirm a message that asks for it, and its sender sees who has.

An acknowledgement is a message in the log: a private reply to the sender. So the sender can wait for
it, it is found by the parent's id, and it is exported, copied and deleted with the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument, PermissionDenied
from shared_context_server.models import Ack, Caller, Message, Visibility
from shared_context_server.services.context import Services
from shared_context_server.services.messages import announce, measure_growth
from shared_context_server.services.quotas import refuse_after
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import Acknowledgement as Given
from shared_context_server.storage.contract import AddedMessage, NewMessage
from shared_context_server.storage.rules.messages import to_appended

MAX_LISTED = 500  # acknowledgements in an answer


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The result of acknowledge_message. `given`: the caller's acknowledgement, None if it only asks
    as the sender or an admin. `by` and `awaiting` are None unless the caller may know them; `by` has
    the first MAX_LISTED, `awaiting` the recipients that have not acknowledged."""

    given: AddedMessage | None
    by: list[Given] | None
    awaiting: list[str] | None


async def acknowledge_message(
    services: Services, caller: Caller, session_id: str, message_id: int
) -> Acknowledged:
    """Acknowledge a message that asks for it, once however often it is called. The sender, and an
    admin who is not a recipient, acknowledge nothing: they are told who has.

    Raises MessageNotFound if the caller may not see the message, PermissionDenied if it is addressed
    to others, and SessionClosed for a first acknowledgement in a closed session.
    """
    message = await services.store.messages.get(
        session_id, message_id, caller, partial(policy.require_session_read, caller)
    )
    if message.ack is not Ack.REQUIRED:
        raise InvalidArgument(
            f"Message {message_id} does not ask for an acknowledgement.",
            field="message_id",
            suggestion="Reply with add_message and parent_message_id instead.",
        )
    is_told = policy.can_see_acknowledgements(caller, message)
    given = None
    if policy.can_acknowledge(caller, message):
        given = await _acknowledge(services, caller, message)
    elif not is_told:
        raise PermissionDenied(
            "Only its recipients may acknowledge this message.",
            suggestion="Reply with add_message and parent_message_id if you have something to say.",
            message_id=message_id,
        )
    if not is_told:
        return Acknowledged(given, None, None)
    by = await services.store.messages.list_acknowledgements(
        session_id, message_id, limit=MAX_LISTED
    )
    have = {one.agent_id for one in by} | {message.sender}
    return Acknowledged(given, by, [name for name in message.recipients if name not in have])


async def _acknowledge(services: Services, caller: Caller, message: Message) -> AddedMessage:
    new = NewMessage(
        session_id=message.session_id,
        sender=caller,
        content=f"Acknowledged message {message.id} (seq {message.seq}).",
        visibility=Visibility.PRIVATE,
        recipients=(message.sender,),
        metadata={"type": "acknowledgement", "message_id": message.id},
        parent_message_id=message.id,
        created_at=utc_now(),
        ack=Ack.GIVEN,
    )
    guard = partial(policy.require_session_write, caller)
    growth = partial(measure_growth, new)
    async with services.quotas.admit(caller, message.session_id, growth) as errors:
        added = await services.store.messages.append(new, refuse_after(guard, errors))
    if not added.duplicate:
        announce(services, to_appended(new, added))
    return added
