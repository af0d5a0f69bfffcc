"""Bars and lines of the last hour, as coordinates for an SVG."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared_context_server.observability.history import LastHour

WIDTH, HEIGHT = 480, 96
_GAP = 2


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. `bars` are drawn above each other, `second` over them. `top` is the value of the upper
    edge. `latest`: the value of the last full minute. `summary` says in words what it shows."""

    title: str
    unit: str
    bars: list[Bar]
    second: list[Bar]
    second_name: str
    latest: str
    top: str
    summary: str
    begin: datetime
    end: datetime
    width: int = WIDTH
    height: int = HEIGHT


def make_charts(last_hour: LastHour, waiting: Collection[str]) -> list[Chart]:
    """Return the charts of the server page. `waiting`: the tools whose calls may wait for something, so
    that how long they take says nothing of the server."""
    minutes = last_hour.minutes
    totals = [minute.total() for minute in minutes]
    timed = [minute.total(without=waiting) for minute in minutes]
    p95 = [_milliseconds(calls.quantile_s(0.95)) for calls in timed]
    p50 = [_milliseconds(calls.quantile_s(0.5)) for calls in timed]
    batch = [m.operations / m.batches if m.batches else 0.0 for m in minutes]
    calls = [float(one.count) for one in totals]
    errors = [float(one.errors) for one in totals]
    return [
        _make(last_hour, "Calls a minute", "", calls, errors, "errors"),
        _make(last_hour, "Time of a call, p95", "ms", p95, p50, "p50"),
        _make(last_hour, "Waiting calls and streams", "", [m.waiters for m in minutes]),
        _make(last_hour, "Writer queue", "", [m.queue for m in minutes]),
        _make(last_hour, "Writes in a commit", "", batch),
    ]


def _make(
    last_hour: LastHour,
    title: str,
    unit: str,
    values: Sequence[float],
    second: Sequence[float] = (),
    second_name: str = "",
) -> Chart:
    minutes = last_hour.minutes
    top = _round_up(max([*values, *second, 0.0]))
    times = [minute.begin.strftime("%H:%M UTC") for minute in minutes]
    highest = max(range(len(values)), key=lambda place: values[place])
    beside = ""
    if second_name:
        beside = f" {_show(sum(second))} {second_name}." if second_name == "errors" else ""
    return Chart(
        title=title,
        unit=unit,
        bars=_draw(values, top, times, unit),
        second=_draw(second, top, times, second_name),
        second_name=second_name,
        latest=_show(values[-2]),
        top=_show(top),
        summary=f"{title}: {_show(values[-2])} {unit} in the last full minute, at most {_show(values[highest])} at "
        f"{times[highest]}.{beside}",
        begin=minutes[0].begin,
        end=minutes[-1].begin,
    )


def _draw(values: Sequence[float], top: float, times: Sequence[str], unit: str) -> list[Bar]:
    step = WIDTH / max(1, len(values))
    bars = []
    for place, value in enumerate(values):
        if value > 0:
            height = max(1.5, value / top * HEIGHT)
            bars.append(
                Bar(
                    round(place * step, 1),
                    round(HEIGHT - height, 1),
                    round(step - _GAP, 1),
                    round(height, 1),
                    f"{times[place]}: {_show(value)} {unit}",
                )
            )
    return bars


def _milliseconds(seconds: float | None) -> float:
    return 0.0 if seconds is None else seconds * 1000


def _round_up(value: float) -> float:
    """Return the next round number that is not smaller."""
    if value <= 1:
        return 1.0
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value)


def _show(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{round(value):,}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"
