"""The last hour of the metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared_context_server.observability.history import MINUTES, Calls, History
from shared_context_server.observability.metrics import BUCKETS_S, Metrics

NOON = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)


def test_what_is_counted_between_two_samples_belongs_to_the_minute_of_the_second() -> None:
    metrics, history = Metrics(), History(NOON)
    for _ in range(4):
        metrics.observe("add_message", 200, 0.003)
    metrics.waiters.set(7)
    metrics.set_gauge("scs_writer_batches", 2)
    metrics.set_gauge("scs_writer_operations", 10)
    history.add(metrics.collect(), NOON)
    metrics.observe("add_message", 409, 0.003)
    metrics.observe("get_time", 200, 200)
    metrics.waiters.set(3)
    metrics.set_gauge("scs_writer_batches", 3)
    metrics.set_gauge("scs_writer_operations", 14)
    history.add(metrics.collect(), NOON + timedelta(minutes=2))
    last_hour = history.show(NOON + timedelta(minutes=2))
    assert len(last_hour.minutes) == MINUTES
    first, empty, second = last_hour.minutes[-3:]
    assert [minute.begin.minute for minute in (first, empty, second)] == [0, 1, 2]
    found = [(minute.total().count, minute.total().errors) for minute in (first, empty, second)]
    assert found == [(4, 0), (0, 0), (2, 1)]
    assert [minute.waiters for minute in (first, second)] == [7, 3]
    assert [(minute.batches, minute.operations) for minute in (first, second)] == [(2, 10), (1, 4)]
    tools = last_hour.by_tool()
    assert {tool: (calls.count, calls.errors) for tool, calls in tools.items()} == {
        "add_message": (5, 1),
        "get_time": (1, 0),
    }
    assert tools["get_time"].quantile_s(0.5) == BUCKETS_S[-1]


def test_what_other_workers_counted_before_the_start_does_not_count() -> None:
    metrics, history = Metrics(), History(NOON)
    metrics.observe("get_time", 200, 0.1)
    history.begin(metrics.collect())
    metrics.observe("get_time", 200, 0.1)
    history.add(metrics.collect(), NOON)
    assert history.show(NOON).by_tool()["get_time"].count == 1


def test_an_hour_later_nothing_of_it_is_left_and_counters_may_fall() -> None:
    metrics, history = Metrics(), History(NOON)
    metrics.observe("get_time", 200, 0.1)
    metrics.observe("get_time", 200, 0.1)
    history.add(metrics.collect(), NOON)
    restarted = Metrics()
    restarted.observe("get_time", 200, 0.1)
    later = NOON + timedelta(minutes=MINUTES)
    history.add(restarted.collect(), later)
    assert history.show(later).by_tool() == {}


@pytest.mark.parametrize(
    "buckets, share, expected",
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, 0.0005),
        ({0: 5, 3: 5}, 0.5, 0.001),
        ({0: 5, 3: 5}, 0.95, 0.005 + (0.01 - 0.005) * 0.9),
        ({len(BUCKETS_S): 1}, 0.5, BUCKETS_S[-1]),
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(
    buckets: dict[int, int], share: float, expected: float | None
) -> None:
    calls = Calls()
    for place, count in buckets.items():
        calls.buckets[place] = count
    found = calls.quantile_s(share)
    assert found == (None if expected is None else pytest.approx(expected))
