"""Score messages and memory entries against a query, a batch at a time, without holding the loop."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, TypeAlias

from shared_context_server.models import MemoryEntry, Message
from shared_context_server.services.indexed_documents import join_texts, memory_text
from shared_context_server.services.scoring import Query, TextIndex
from shared_context_server.services.slices import Work

Item: TypeAlias = Message | MemoryEntry


class Match(NamedTuple):
    """An item that reached the threshold. Matches compare as they are ranked: by score, and the newer
    one first among equals."""

    score: float
    at: datetime
    number: int
    item: Item


def score_in_steps(
    items: Iterable[Item], query: Query, threshold: float, *, with_metadata: bool
) -> Work[list[Match]]:
    """Return the items that reach the threshold with their scores, in no order."""
    contents, metadata = TextIndex(), TextIndex()
    kept: list[Item] = []
    for item in items:
        text = item.content if isinstance(item, Message) else memory_text(item)
        yield from contents.add_in_steps(text)
        if with_metadata:
            yield from metadata.add_in_steps(join_texts(item.metadata) if item.metadata else "")
        kept.append(item)
        yield
    scores = yield from contents.match_in_steps(query, threshold)
    if with_metadata:
        for index, score in (yield from metadata.match_in_steps(query, threshold)).items():
            scores[index] = max(score, scores.get(index, 0.0))
    return [_match(kept[index], score) for index, score in scores.items()]


def _match(item: Item, score: float) -> Match:
    if isinstance(item, Message):
        return Match(score, item.timestamp, item.id, item)
    return Match(score, item.updated_at, 0, item)
