"""Check that every refusal is one that the call itself can explain."""

from __future__ import annotations

from collections.abc import Iterator

from prove.history import History, Outcome
from prove.promises import Broken, Promise

EXPLAINED = frozenset(
    {
        "CONFLICT",
        "LEASE_LOST",
        "MEMORY_NOT_FOUND",
        "SESSION_CLOSED",
        "SESSION_NOT_FOUND",
    }
)


def check_answers(history: History) -> Iterator[Broken]:
    for call in history.calls:
        if call.outcome is Outcome.REFUSED and call.code not in EXPLAINED:
            text = f"{call.agent} was answered {call.code or 'without a code'} to {call.tool}"
            yield Broken(Promise.UNEXPLAINED, text, (call.number,))
