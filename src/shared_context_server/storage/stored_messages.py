"""A list of messages that keeps the rows it was read from, and makes models on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from shared_context_server.models import Message
from shared_context_server.storage.codec import Row, from_message, to_message


class StoredMessages(Sequence[Message]):
    """Rows of MESSAGE, read as Message. Code that only passes messages on takes the rows, whose
    recipients and metadata are still JSON text."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        """Whether the messages are the same, in a list too."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __iter__(self) -> Iterator[Message]:
        return map(to_message, self.rows)

    @overload
    def __getitem__(self, index: int) -> Message: ...

    @overload
    def __getitem__(self, index: slice) -> StoredMessages: ...

    def __getitem__(self, index: int | slice) -> Message | StoredMessages:
        if isinstance(index, slice):
            return StoredMessages(self.rows[index])
        return to_message(self.rows[index])


def rows_of(messages: Iterable[Message]) -> Iterable[Row]:
    """Return the rows that the messages were read from, or would be stored as."""
    if isinstance(messages, StoredMessages):
        return messages.rows
    return map(from_message, messages)
