"""Score messages and memory entries against a query, a batch at a time, without holding the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from shared_context_server.models import MemoryEntry, Message
from shared_context_server.services.indexed_documents import join_texts, memory_text
from shared_context_server.services.ranking import Candidate
from shared_context_server.services.scoring import Query, score_in_steps
from shared_context_server.services.slices import Work

Item: TypeAlias = Message | MemoryEntry

LOWEST_SCORE = 0.01  # what has nothing of the query is no match, whatever the threshold


def match_in_steps(
    items: Sequence[Item], query: Query, threshold: float, *, with_metadata: bool
) -> Work[list[Candidate]]:
    """Return the items that reach the threshold, in no order."""
    scores = yield from score_in_steps(query, [text_of(item) for item in items])
    if with_metadata:
        described = [number for number, item in enumerate(items) if item.metadata]
        texts = [join_texts(items[number].metadata) for number in described]
        for number, score in zip(described, (yield from score_in_steps(query, texts)), strict=True):
            scores[number] = max(score, scores[number])
    lowest = max(threshold, LOWEST_SCORE)
    return [
        _to_candidate(item, score)
        for item, score in zip(items, scores, strict=True)
        if score >= lowest
    ]


def text_of(item: Item) -> str:
    """Return the text that is searched and shown."""
    return item.content if isinstance(item, Message) else memory_text(item)


def _to_candidate(item: Item, score: float) -> Candidate:
    if isinstance(item, Message):
        return Candidate.of_message(item, score)
    return Candidate.of_memory(item, score)
