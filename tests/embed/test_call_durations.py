"""ToolTimings: calls are matched by tool_use_id, and no number of them fills the memory."""

from __future__ import annotations

import pytest

from shared_context_server.embed import ToolTimings
from shared_context_server.embed.call_durations import MAX_RUNNING, MAX_TOOLS, SAMPLES_PER_TOOL


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds that the hooks see, as the one element."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


async def record(
    timings: ToolTimings, clock: list[float], tool: str, call_id: str, elapsed_s: float
) -> None:
    named = {"tool_name": tool}
    assert await timings.before(named, call_id, None) == {}
    clock[0] += elapsed_s
    assert await timings.after(named, call_id, None) == {}


async def test_calls_are_counted_and_summarised_by_tool(clock: list[float]) -> None:
    timings = ToolTimings()
    for n in range(1, 102):
        await record(timings, clock, "a", f"a{n}", n / 1000)
    await record(timings, clock, "b", "b1", 0.5)
    a = timings["a"]
    assert a.count == 101
    assert (a.p50_ms, a.p99_ms, a.last_ms) == pytest.approx((51, 100, 101))
    assert list(timings.by_tool()) == ["a", "b"]
    with pytest.raises(KeyError):
        timings["c"]


async def test_calls_that_overlap_are_matched_by_their_ids(clock: list[float]) -> None:
    timings = ToolTimings()
    await timings.before({}, "first", None)
    clock[0] += 1
    await timings.before({}, "second", None)
    clock[0] += 1
    await timings.after({"tool_name": "slow"}, "first", None)
    await timings.after({"tool_name": "quick"}, "second", None)
    assert timings["slow"].last_ms == pytest.approx(2000)
    assert timings["quick"].last_ms == pytest.approx(1000)


async def test_an_end_without_a_beginning_is_not_counted() -> None:
    timings = ToolTimings()
    for input_data, call_id in (({"tool_name": "a"}, "x"), ({"tool_name": "a"}, None), (None, "y")):
        await timings.after(input_data, call_id, None)
    await timings.before({}, "y", None)
    await timings.after(None, "y", None)
    assert timings.by_tool() == {}


async def test_nothing_grows_without_bound(clock: list[float]) -> None:
    timings = ToolTimings()
    for n in range(MAX_RUNNING + 1):
        await timings.before({}, f"never ends {n}", None)
    await timings.after({"tool_name": "a"}, "never ends 0", None)  # forgotten
    assert timings.by_tool() == {}
    for n in range(SAMPLES_PER_TOOL + 10):
        await record(timings, clock, "a", f"{n}", 1.0 if n < 10 else 0.001)
    assert timings["a"].count == SAMPLES_PER_TOOL + 10
    assert timings["a"].p99_ms == pytest.approx(1)
    for n in range(MAX_TOOLS + 10):
        await record(timings, clock, f"tool {n}", "x", 0.001)
    assert len(timings.by_tool()) == MAX_TOOLS
