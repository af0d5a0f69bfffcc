"""Lines that are written at intervals."""

from __future__ import annotations

from typing import Any

from shared_context_server.observability.repeats import RepeatedLines


class Lines:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def error(self, event: str, **facts: Any) -> None:
        self.written.append({"event": event, **facts})


def test_a_line_comes_at_once_then_one_a_minute_with_a_count() -> None:
    lines, now = Lines(), 100.0
    repeated = RepeatedLines(lines, clock=lambda: now)  # type: ignore[arg-type]
    for _ in range(200):
        repeated.error("failed", reason="full", error="disk")
    assert lines.written == [{"event": "failed", "reason": "full", "error": "disk"}]
    now += 60
    repeated.error("failed", reason="full", error="disk")
    assert lines.written[1]["suppressed"] == 199
    repeated.error("failed", reason="full", error="disk")
    assert len(lines.written) == 2


def test_another_reason_is_not_held_back() -> None:
    lines = Lines()
    repeated = RepeatedLines(lines)  # type: ignore[arg-type]
    repeated.error("failed", reason="full")
    repeated.error("failed", reason="damaged")
    assert [line["reason"] for line in lines.written] == ["full", "damaged"]
