"""The timeline of a session: a lane for each agent with its messages, waits, leases and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared_context_server.models import Caller, Lease, Message
from shared_context_server.services import agents, leases
from shared_context_server.services.context import Services
from shared_context_server.services.session_log import LogFilter, read_page
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.rules.tasks import is_of_task
from shared_context_server.ui.messages import choose_hue

SPANS = {
    "15m": ("15 min", timedelta(minutes=15)),
    "1h": ("1 hour", timedelta(hours=1)),
    "6h": ("6 hours", timedelta(hours=6)),
    "24h": ("24 hours", timedelta(hours=24)),
}
USUAL_SPAN = "1h"
MAX_LANES = 12
MAX_MESSAGES = 300
MAX_LEASES = 100
WIDTH = 1000  # units of the drawing, whatever its width on the screen
FUTURE = 0.06  # the part of the width behind "now", where leases still run


@dataclass(frozen=True, slots=True)
class Mark:
    """A message, as a position in the drawing, with what is shown of it on hover."""

    x: float
    seq: int
    title: str
    tone: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A lease, a task or a wait, from `x` on."""

    x: float
    width: float
    kind: str
    title: str


@dataclass(slots=True)
class Lane:
    """One agent's part of the drawing."""

    agent_id: str
    hue: int
    marks: list[Mark] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    waits_for: str = ""

    @property
    def summary(self) -> str:
        """What the lane shows, in words."""
        counts = [(len(self.marks), "message")]
        counts += [(sum(bar.kind == kind for bar in self.bars), kind) for kind in ("lease", "task")]
        parts = [f"{n} {what}{'s' if n != 1 else ''}" for n, what in counts if n]
        if self.waits_for:
            parts.append(f"waiting for {self.waits_for}")
        return f"{self.agent_id}: {', '.join(parts) or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lanes between `start` and `end`, the busiest first. `now_x`: where now is. `is_partial`: there
    are more messages in this time than are drawn."""

    lanes: list[Lane]
    more_lanes: int
    start: datetime
    middle: datetime
    now: datetime
    now_x: float
    is_partial: bool
    span: str


@dataclass(frozen=True, slots=True)
class _Scale:
    start: datetime
    seconds: float

    def x(self, moment: datetime) -> float:
        share = (moment - self.start).total_seconds() / self.seconds
        return round(min(max(share, 0.0), 1.0) * WIDTH, 1)


def choose_span(created_at: datetime, last_activity: datetime) -> str:
    """Return the shortest span that shows the whole session, or USUAL_SPAN, or a longer one if nothing
    has happened for so long."""
    now, usual = utc_now(), SPANS[USUAL_SPAN][1]
    for name, (_, length) in SPANS.items():
        if now - created_at <= length or (length >= usual and now - last_activity < length):
            return name
    return next(reversed(SPANS))


async def make_timeline(services: Services, caller: Caller, session_id: str, span: str) -> Timeline:
    """Return the timeline of the last `span` of SPANS, as far as the caller may see. Raises
    SessionNotFound."""
    length = SPANS[span][1]
    now = utc_now()
    scale = _Scale(now - length, length.total_seconds() / (1 - FUTURE))
    page = await read_page(
        services,
        caller,
        session_id,
        LogFilter(start_time=scale.start),
        before_seq=None,
        limit=MAX_MESSAGES,
    )
    held = await leases.list_leases(services, caller, session_id, limit=MAX_LEASES)
    lanes: dict[str, Lane] = {}
    _draw_messages(lanes, page.messages, scale)
    _draw_leases(lanes, held.leases, scale)
    await _draw_waits(services, caller, session_id, lanes, scale, now)
    ordered = sorted(lanes.values(), key=lambda lane: (-len(lane.marks), lane.agent_id))
    return Timeline(
        lanes=ordered[:MAX_LANES],
        more_lanes=max(0, len(ordered) - MAX_LANES),
        start=scale.start,
        middle=scale.start + length / 2,
        now=now,
        now_x=scale.x(now),
        is_partial=page.older_before is not None,
        span=span,
    )


def _lane_of(lanes: dict[str, Lane], agent_id: str) -> Lane:
    return lanes.setdefault(agent_id, Lane(agent_id, choose_hue(agent_id)))


def _draw_messages(lanes: dict[str, Lane], messages: Sequence[Message], scale: _Scale) -> None:
    claimed: dict[int, tuple[str, datetime]] = {}
    for message in messages:
        lane = _lane_of(lanes, message.sender)
        first_line = message.content[:80].partition("\n")[0]
        is_overseer = "overseer" in message.metadata
        tone = "overseer" if is_overseer else message.visibility.value
        title = f"#{message.seq} {first_line}"
        lane.marks.append(Mark(scale.x(message.timestamp), message.seq, title, tone))
        task_id, state = message.metadata.get("task_id"), message.metadata.get("state")
        if message.metadata.get("type") != "task" or not isinstance(task_id, int):
            continue
        if state == "claimed":
            claimed[task_id] = message.sender, message.timestamp
        elif task_id in claimed:
            worker, since = claimed.pop(task_id)
            bar = _make_bar(scale, since, message.timestamp, "task", f"Task {task_id}: {state}")
            _lane_of(lanes, worker).bars.append(bar)


def _draw_leases(lanes: dict[str, Lane], held: Sequence[Lease], scale: _Scale) -> None:
    for lease in held:
        kind = "task" if is_of_task(lease.name) else "lease"
        what = lease.name if kind == "lease" else f"task {lease.name.rpartition(':')[2]}"
        bar = _make_bar(scale, lease.acquired_at, lease.expires_at, kind, f"Holds {what}")
        _lane_of(lanes, lease.holder).bars.append(bar)


async def _draw_waits(
    services: Services,
    caller: Caller,
    session_id: str,
    lanes: dict[str, Lane],
    scale: _Scale,
    now: datetime,
) -> None:
    """Add what the agents of the session wait for in it now, and since when."""
    found = await agents.list_agents(
        services, caller, session_id=session_id, limit=MAX_LANES * 2, cursor=None
    )
    names = [one.agent.agent_id for one in found.agents if one.is_active]
    activities = await agents.describe_agents(services, caller, names)
    for agent_id, activity in activities.items():
        for instance in activity.instances:
            waits_for = instance.waits_for
            if waits_for is None or waits_for.session_id != session_id:
                continue
            what = "messages" if waits_for.kind == "messages" else f"a {waits_for.kind}"
            if waits_for.name and waits_for.kind == "lease":
                what = f"the lease {waits_for.name}"
            lane = _lane_of(lanes, agent_id)
            since = instance.waits_since or instance.last_seen
            lane.waits_for = f"{what}, {_describe_length(now - since)} so far"
            bar = _make_bar(scale, since, now, "wait", f"Waits for {lane.waits_for}")
            lane.bars.append(bar)


def _describe_length(length: timedelta) -> str:
    minutes, seconds = divmod(max(0, int(length.total_seconds())), 60)
    if minutes < 1:
        return f"{seconds} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


def _make_bar(scale: _Scale, since: datetime, until: datetime, kind: str, title: str) -> Bar:
    x = scale.x(since)
    return Bar(x, max(round(scale.x(until) - x, 1), 3), kind, title)
