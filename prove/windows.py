"""The smallest part of a history that shows a broken promise, as text and as a timeline."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prove.history import Call, Fault, History, Outcome
from prove.promises import MEANING, Broken

MOST = 40
"""Calls in a window: the broken promise's own, then the nearest ones about the same thing."""

SHOWN_CHARS = 160
WIDTH = 760
_LEAST = 3  # of a bar, so that a quick call can be seen


@dataclass(frozen=True)
class Window:
    """`calls` and `faults` in the order of their times; `begin` and `end` are the times between."""

    broken: Broken
    calls: list[Call]
    faults: list[Fault]
    begin: float
    end: float


def find_window(history: History, broken: Broken) -> Window:
    """Return the calls that show it, and others about the same thing at the same time."""
    own = [call for call in history.calls if call.number in broken.calls]
    begin = min((call.invoked_at for call in own), default=0.0)
    end = max((_end(call) for call in own), default=begin)
    things = {thing for call in own for thing in _things(call)}
    beside = [
        call
        for call in history.calls
        if call.number not in broken.calls
        and call.invoked_at <= end
        and begin <= _end(call)
        and not things.isdisjoint(_things(call))
    ]
    middle = (begin + end) / 2
    beside.sort(key=lambda call: abs(call.invoked_at - middle))
    calls = sorted(own[:MOST] + beside[: max(0, MOST - len(own))], key=lambda call: call.invoked_at)
    faults = [
        fault for fault in history.faults if fault.began_at <= end and begin <= fault.ended_at
    ]
    return Window(broken, calls, faults, begin, end)


def _end(call: Call) -> float:
    return call.ended_at if call.ended_at < math.inf else call.invoked_at


def _things(call: Call) -> set[tuple[str, str]]:
    """What a call is about: an entry, a lease, a task; else its session."""
    arguments = call.arguments
    place = str(arguments.get("session_id") or "")
    if "key" in arguments:
        return {(place, f"key {arguments['key']}")}
    found = {(place, f"lease {arguments[name]}") for name in ("name", "lease") if name in arguments}
    if "task_id" in arguments:
        found.add((place, f"task {arguments['task_id']}"))
    return found or {(place, "log")}


def describe(call: Call) -> str:
    """The arguments and the answer of a call in one short line."""
    answer = call.answer if call.is_ok else call.code
    if isinstance(answer, dict):
        answer = {name: value for name, value in answer.items() if name != "success"}
        if "messages" in answer:
            answer["messages"] = [message["seq"] for message in answer["messages"]]
    asked = {name: value for name, value in call.arguments.items() if name != "session_id"}
    return f"{_short(asked)} → {_short(answer) if answer else call.outcome.value}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def write_text(window: Window) -> str:
    """One line a call: when, who, how, what, and whether it is one of those that show the error."""
    lines = [f"{window.broken}", f"  {MEANING[window.broken.promise]}"]
    for fault in window.faults:
        began = fault.began_at - window.begin
        lines.append(f"  fault: {fault.name} ({fault.target}), begun at {began:+.3f} s")
    for call in window.calls:
        mark = "!" if call.number in window.broken.calls else " "
        took = "no answer" if call.ended_at == math.inf else f"{_end(call) - call.invoked_at:.3f} s"
        lines.append(
            f"{mark} {call.invoked_at - window.begin:+9.3f} s  {took:>9}  {call.agent:<12}"
            f" {call.way:<15} {call.tool} {describe(call)}"
        )
    return "\n".join(lines)


def write_timeline(windows: list[Window], title: str, path: Path) -> None:
    """Write one HTML page: for each window a row an agent, and a bar a call."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("timeline.html.jinja").render(
        title=title, width=WIDTH, windows=[_draw(window) for window in windows]
    )
    path.write_text(page, encoding="utf-8")


def _draw(window: Window) -> dict[str, object]:
    span = max(window.end - window.begin, 1e-6)

    def place(begin: float, end: float) -> dict[str, float]:
        left = max(0.0, (begin - window.begin) / span * WIDTH)
        right = min(WIDTH, (end - window.begin) / span * WIDTH)
        return {"left": round(left, 1), "width": round(max(_LEAST, right - left), 1)}

    rows: dict[str, list[dict[str, object]]] = {}
    for call in window.calls:
        end = window.end if call.outcome is Outcome.UNKNOWN else _end(call)
        rows.setdefault(call.agent, []).append(
            {
                **place(call.invoked_at, end),
                "tool": call.tool,
                "outcome": call.outcome.value,
                "shows": call.number in window.broken.calls,
                "text": describe(call),
            }
        )
    return {
        "promise": window.broken.promise.value,
        "meaning": MEANING[window.broken.promise],
        "text": window.broken.text,
        "seconds": f"{span:.3f}",
        "faults": [
            {**place(fault.began_at, fault.ended_at), "name": fault.name} for fault in window.faults
        ],
        "rows": rows,
        "lines": write_text(window),
    }
