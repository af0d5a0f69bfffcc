"""Measures the duration of an agent's tool calls, with hooks of the Claude Agent SDK."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

SAMPLES_PER_TOOL = 1000  # the latest calls; enough for a p99
MAX_TOOLS = 256
MAX_RUNNING = 1000  # the oldest is dropped: denied calls, for example, never end


@dataclass(frozen=True, slots=True)
class ToolTiming:
    """Durations of one tool in ms. `count` includes all calls, the percentiles the latest 1000."""

    count: int
    p50_ms: float
    p99_ms: float
    last_ms: float


class _Samples:
    def __init__(self) -> None:
        self.count = 0
        self.latest_ms: deque[float] = deque(maxlen=SAMPLES_PER_TOOL)

    def add(self, elapsed_ms: float) -> None:
        self.count += 1
        self.latest_ms.append(elapsed_ms)

    def summarise(self) -> ToolTiming:
        ordered = sorted(self.latest_ms)
        return ToolTiming(
            self.count,
            p50_ms=ordered[int(0.50 * (len(ordered) - 1))],
            p99_ms=ordered[int(0.99 * (len(ordered) - 1))],
            last_ms=self.latest_ms[-1],
        )


class ToolTimings:
    """Records the durations of tool calls. It can be read at any time.

    A duration is the time from the PreToolUse hook to the PostToolUse or PostToolUseFailure hook with
    the same tool_use_id, including permission prompts. The number of records is limited.
    """

    def __init__(self) -> None:
        self._running: OrderedDict[str, float] = OrderedDict()
        self._samples: OrderedDict[str, _Samples] = OrderedDict()

    def by_tool(self) -> dict[str, ToolTiming]:
        """The timing of every called tool, by its full name (`mcp__…` for tools of servers)."""
        return {name: samples.summarise() for name, samples in self._samples.items()}

    def __getitem__(self, tool_name: str) -> ToolTiming:
        """The timing of one tool. Raises KeyError if no call of it has ended."""
        return self._samples[tool_name].summarise()

    async def before(
        self, input_data: Any, tool_use_id: str | None, _context: Any
    ) -> dict[str, Any]:
        """The PreToolUse hook. It does not change the call."""
        if tool_use_id is not None:
            self._running[tool_use_id] = time.perf_counter()
            if len(self._running) > MAX_RUNNING:
                self._running.popitem(last=False)
        return {}

    async def after(
        self, input_data: Any, tool_use_id: str | None, _context: Any
    ) -> dict[str, Any]:
        """The PostToolUse and PostToolUseFailure hook. An unknown call is not counted."""
        ended_s = time.perf_counter()
        started_s = None if tool_use_id is None else self._running.pop(tool_use_id, None)
        name = input_data.get("tool_name") if isinstance(input_data, dict) else None
        if started_s is not None and isinstance(name, str):
            self._add(name, (ended_s - started_s) * 1000)
        return {}

    def _add(self, tool_name: str, elapsed_ms: float) -> None:
        samples = self._samples.setdefault(tool_name, _Samples())
        samples.add(elapsed_ms)
        if len(self._samples) > MAX_TOOLS:
            self._samples.popitem(last=False)
