"""The change stream: read what any process has committed, and wake processes to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shared_context_server.models import (
    Event,
)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Identifies a message. While it is in the store, so is everything committed before it, except
    what was removed since."""

    message_id: int
    session_id: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class ChangePosition:
    """A position in the change stream: the last message id and the last change id that were read.
    `anchor` is the newest message that was read, if any. It shows whether the history is the same."""

    message_id: int
    change_id: int
    anchor: Anchor | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Changes:
    """Events read from the change stream, and the position to continue from. The messages of a
    session come by seq. If not `is_complete`, some events after the old position were purged.
    `is_set_back`: the store no longer has the history of the old position, because a backup was
    restored or a standby without the last commits took over. `position` is then the end."""

    events: list[Event]
    position: ChangePosition
    is_complete: bool = True
    is_set_back: bool = False


class WakeupChannel(Protocol):
    """Wakes the other processes that serve the same store. A wake-up carries no data: the receiver
    reads the change stream. A wake-up may get lost, so receivers also read at intervals."""

    def start_listening(self) -> bool:
        """Listen from now on. Return False if this process cannot be woken and has to poll."""

    def stop_listening(self) -> None:
        """Stop listening."""

    def notify(self) -> None:
        """Wake the other processes. Never blocks, never raises."""

    def close(self) -> None:
        """Stop listening and notifying."""


class ChangeStream(Protocol):
    """The stream of committed changes, through which processes learn of each other's writes."""

    def open_wakeup_channel(self, on_wakeup: Callable[[], None]) -> WakeupChannel:
        """Open this process's end of the wake-up channel. `on_wakeup` is called in the loop when
        another process notifies, and when a notification may have been lost. The store closes the
        channel."""

    async def get_position(self) -> ChangePosition:
        """Return the end of the stream. All that any process commits later comes after it."""

    async def read(self, after: ChangePosition, limit: int) -> Changes:
        """Return the events committed after `after`, each once, about `limit` of them. Fewer than
        `limit` means that the end is reached. The stream has new messages, but not those that
        were removed since; sessions created, closed and deleted; messages that have expired; memory
        written and removed (except with its session); leases taken, renewed and
        released; and the events given to `add`."""

    async def add(self, events: Sequence[Event]) -> None:
        """Append events that no other method appends."""
