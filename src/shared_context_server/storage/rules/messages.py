"""Decide whether a caller may refer to a message, and compute the parameters of a page."""

from __future__ import annotations

from typing import Any

from shared_context_server import policy
from shared_context_server.errors import MessageNotFound
from shared_context_server.models import Caller, Message, Session
from shared_context_server.storage.codec import (
    MAX_INTEGER,
    Row,
    clamp,
    decode_time,
    encode_json,
    encode_time,
)
from shared_context_server.storage.contract import AddedMessage, MessageQuery, NewMessage
from shared_context_server.storage.rules.pages import SeqRun, page_budget


def require_visible(message: Message | None, message_id: int, caller: Caller) -> Message:
    """Return the message. Raise MessageNotFound if there is none or the caller may not see it."""
    if message is None or not policy.can_see_message(caller, message):
        raise MessageNotFound(message_id)
    return message


def require_parent(parent: Message | None, new: NewMessage) -> None:
    """Raise MessageNotFound unless the sender may see, and reply to, the parent of `new`. None:
    there is no such message in the session."""
    sender = new.sender
    if (
        parent is None
        or not policy.can_see_message(sender, parent)
        or not policy.can_reply_to(sender, parent)
    ):
        assert new.parent_message_id is not None
        raise MessageNotFound(new.parent_message_id, field="parent_message_id")


def to_appended(new: NewMessage, added: AddedMessage) -> Message:
    """Return the new message as a store returns it."""
    return Message(
        added.id,
        new.session_id,
        added.seq,
        new.sender.agent_id,
        new.sender.agent_type,
        new.content,
        new.visibility,
        list(new.recipients),
        new.metadata,
        new.parent_message_id,
        added.timestamp,
        new.sender.instance,
        new.ack,
    )


def ack_parameters(new: NewMessage) -> dict[str, Any]:
    """Return the parameters of the statement that finds the sender's earlier acknowledgement."""
    assert new.parent_message_id is not None
    return {
        "session_id": new.session_id,
        "message_id": clamp(new.parent_message_id),
        "agent_id": new.sender.agent_id,
    }


def to_given_ack(row: Row) -> AddedMessage:
    """Return the answer of a repeated acknowledgement, from a row (id, seq, created_at)."""
    return AddedMessage(row[0], row[1], decode_time(row[2]), duplicate=True)


SCANNED_FOR_UNREAD = 1000  # newest messages of the store; their contents are searched


def addressing(agent_id: str, limit: int) -> dict[str, Any]:
    """Return the parameters of the statement that finds unread messages to an agent."""
    return {
        "agent_id": agent_id,
        "recipient": encode_json(agent_id),
        "at_name": f"@{agent_id}",
        "wide_at_name": f"\uff20{agent_id}",
        "scanned": SCANNED_FOR_UNREAD,
        "limit": clamp(limit),
        "max_bytes": page_budget(limit),
    }


def page_parameters(session: Session, caller: Caller, query: MessageQuery) -> dict[str, Any]:
    """Return the parameters of the statements that find a page, with bounds that any database can
    compare. They ask for one message more than the limit, to know whether there are more."""
    start, end, parent = query.start_time, query.end_time, query.parent_message_id
    return {
        "session_id": session.id,
        "after_seq": max(clamp(query.after_seq or 0), session.removed_up_to),
        "before_seq": MAX_INTEGER if query.before_seq is None else clamp(query.before_seq),
        "limit": clamp(query.limit + 1),
        "max_bytes": page_budget(query.limit),
        "offset": clamp(query.offset),
        "is_admin": caller.is_admin,
        "sender": query.sender,
        "visibility": query.visibility,
        "start_time": -MAX_INTEGER if start is None else encode_time(start),
        "end_time": MAX_INTEGER if end is None else encode_time(end),
        "parent_message_id": None if parent is None else clamp(parent),
    }


def narrow_to_runs(parameters: dict[str, Any], runs: list[SeqRun]) -> dict[str, Any]:
    """Limit the parameters of a page to `runs`, which ascend; there is at least one."""
    return parameters | {
        "after_seq": max(parameters["after_seq"], runs[0].after_seq),
        "before_seq": min(parameters["before_seq"], runs[-1].up_to_seq + 1),
    }
