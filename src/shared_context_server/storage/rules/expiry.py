"""Choose which messages one step of message retention removes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shared_context_server.models import Visibility
from shared_context_server.storage.codec import decode_json
from shared_context_server.storage.rules.audience import keys_of_message

# What one step removes at most: some milliseconds of a writer. One message may exceed the last two.
STEP_ROWS = 200
STEP_BYTES = 2_000_000
STEP_KEYS = 1_000  # rows of the audience index; a private message has two for each recipient

EXPIRING_COLUMNS = "seq, id, created_at, visibility, sender, sender_type, recipients"
"""The columns that choose_step wants of each message, before its size in bytes."""


@dataclass(slots=True)
class ChosenStep:
    """The messages of a step: up to `up_to_seq`, which has `last_id` and was written at `last_at`, 0 if
    there are none. `names`: their names in the index of audiences."""

    count: int = 0
    up_to_seq: int = 0
    last_id: int = 0
    last_at: int = 0
    names: set[str] = field(default_factory=set)


def choose_step(rows: Iterable[Any], expired_before: int) -> ChosenStep:
    """Choose the messages that one step removes, from the first messages of a session, oldest first.
    `rows` is read no further than needed."""
    step = ChosenStep()
    left_bytes, left_keys = STEP_BYTES, STEP_KEYS
    for seq, id_, created_at, visibility, sender, sender_type, recipients, size in rows:
        if created_at >= expired_before:
            break
        keys = keys_of_message(Visibility(visibility), sender, sender_type, decode_json(recipients))
        left_bytes -= size
        left_keys -= len(keys)
        if step.count and min(left_bytes, left_keys) < 0:
            break
        step.names |= keys
        step.count += 1
        step.up_to_seq, step.last_id, step.last_at = seq, id_, created_at
        if step.count == STEP_ROWS:
            break
    return step
