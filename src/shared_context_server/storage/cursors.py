"""How far an agent may say that it has read."""

from __future__ import annotations

from shared_context_server.errors import InvalidArgument


def require_seq_up_to(seq: int, last_seq: int) -> None:
    """Raise InvalidArgument for a seq behind `last_seq`, the newest that the caller may see."""
    if seq > last_seq:
        raise InvalidArgument(
            f"seq is {seq}, the newest message you may see has {last_seq}.",
            field="seq",
            last_seq=last_seq,
        )
