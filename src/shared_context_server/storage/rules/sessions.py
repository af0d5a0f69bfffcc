"""Decisions about sessions, their participants and cursors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Session
from shared_context_server.storage.codec import decode_time, encode_time
from shared_context_server.storage.contract import ExaminedSessions


def require_seq_up_to(seq: int, last_visible: int, session: Session) -> None:
    """Raise InvalidArgument for a seq after `last_visible`, the newest that the caller may see or saw
    (0: none), and after the messages that were removed."""
    removed_up_to = session.removed_up_to
    last_seq = max(last_visible, removed_up_to)
    if seq <= last_seq:
        return
    if last_visible > removed_up_to:
        reason = f"the newest message you may see has seq {last_seq}"
    elif removed_up_to:
        reason = (
            f"the messages up to seq {removed_up_to} were removed by age, and after them there is "
            "none that you may see"
        )
    else:
        reason = "there is no message that you may see"
    raise InvalidArgument(f"seq is {seq}, but {reason}.", field="seq", last_seq=last_seq)


def join_participants(session: Session, writers: Iterable[str], limit: int) -> list[str]:
    """Return the creator, the invited and the writers, each once, the first `limit` of them."""
    everyone = dict.fromkeys((session.created_by, *session.invited, *writers))
    return list(everyone)[:limit]


def place_after(after: tuple[datetime, str] | None) -> dict[str, int | str]:
    """Return the parameters for going on after a session, given by (created_at, id)."""
    if after is None:
        return {"after_at": 0, "after_id": ""}
    return {"after_at": encode_time(after[0]), "after_id": after[1]}


def examined(rows: Sequence[Any], limit: int) -> ExaminedSessions:
    """Return the page of these rows: id, created_at, whether it is idle. A page with less than `limit`
    rows is the last one."""
    next_after = None
    if len(rows) == limit:
        session_id, created_at, _ = rows[-1]
        next_after = (decode_time(created_at), session_id)
    return ExaminedSessions([row[0] for row in rows if row[2]], next_after)
