"""The stream of committed changes, and how processes wake each other to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shared_context_server.models import (
    Event,
)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A message that was in the store: while it is, so is all that was committed before it."""

    message_id: int
    session_id: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class TailPosition:
    """How far a reader of the tail has read: ids of a message and a change. `anchor` is the newest
    message seen, None if there was none, by which to know the history again."""

    message_id: int
    change_id: int
    anchor: Anchor | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Changes:
    """A piece of the tail: `events` in an order that keeps each session's messages by seq, and where
    to read on. Without `is_complete` some of what was behind the old position is no longer kept.
    `is_set_back`: the store has lost what the position was taken in, since an earlier state of it was
    restored or a standby that lacked the last commits took over; `position` is the end then."""

    events: list[Event]
    position: TailPosition
    is_complete: bool = True
    is_set_back: bool = False


class Bell(Protocol):
    """How processes that serve one store wake each other. What happened is not said: who hears a
    ring reads the tail. A ring may get lost, so whoever listens looks now and then in any case."""

    def start_listening(self) -> bool:
        """Listen from now on; False if rings cannot be heard, and looking is all there is."""

    def stop_listening(self) -> None:
        """Stop listening."""

    def ring(self) -> None:
        """Wake the others; never blocks, never raises."""

    def close(self) -> None:
        """Stop listening, and ring no more."""


class ChangeStream(Protocol):
    """What was committed, for processes that wait for news of each other's writes. The stream is called the tail."""

    def open_bell(self, on_ring: Callable[[], None]) -> Bell:
        """A bell that the processes that serve this store share. `on_ring` is called, in the loop,
        when another process rings, and when one might have rung unheard. The store closes it."""

    async def get_position(self) -> TailPosition:
        """The end of the tail: whatever is committed afterwards, by any process, is behind it."""

    async def read(self, after: TailPosition, limit: int) -> Changes:
        """What was committed behind `after`, each event once, about `limit` of them; fewer than
        `limit` means that the end is reached. On the tail are new messages, sessions created, closed
        and deleted, memory written and removed (with its session: no event of its own), leases
        taken, renewed and released, and what add_changes put there."""

    async def add(self, events: Sequence[Event]) -> None:
        """Put on the tail what no other method puts there."""
