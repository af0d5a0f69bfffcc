"""How much a session or an agent has stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Usage:
    """How much is stored now: of sessions that are not deleted, and memory that has not been purged.

    A message counts for its sender, a memory entry for the agent that wrote it last, a task and a
    session for their creators. `bytes` are those of texts in UTF-8: purposes, contents, keys, values,
    results, metadata and recipients.
    """

    sessions: int
    messages: int
    memory_entries: int
    bytes: int


class Miscount(NamedTuple):
    """How much more is stored than the counters of an agent in a session say; less: negative.

    `counter`: the table of the counters. `session_id`: "" outside of sessions.
    """

    counter: str
    session_id: str
    agent_id: str
    sessions: int
    messages: int
    memory_entries: int
    bytes: int
