"""Decisions about sessions, their participants and cursors."""

from __future__ import annotations

from collections.abc import Iterable

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Session


def require_seq_up_to(seq: int, last_seq: int) -> None:
    """Raise InvalidArgument for a seq after `last_seq`, the newest that the caller may see."""
    if seq > last_seq:
        raise InvalidArgument(
            f"seq is {seq}, but the newest message you may see has seq {last_seq}.",
            field="seq",
            last_seq=last_seq,
        )


def join_participants(session: Session, writers: Iterable[str], limit: int) -> list[str]:
    """Return the creator, the invited and the writers, each once, the first `limit` of them."""
    everyone = dict.fromkeys((session.created_by, *session.invited, *writers))
    return list(everyone)[:limit]
