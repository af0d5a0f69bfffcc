"""The port for the overview of all agents: what each does, who waits for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from shared_context_server.models import Activity, Caller, Instance, Lease

MAX_SURVEYED = 20_000
"""Instances that a survey looks at: those last seen."""

MAX_BLOCKS = 500
"""Blocked instances in a survey."""


@dataclass(frozen=True, slots=True)
class SurveyQuery:
    """What to list. `contains`: literally in the agent's id or in what one of its instances says of
    itself. A wait counts if the instance was seen at `waits_after` or later. An instance is silent
    after `silent_factor` times its usual pause, but at least `silent_min` and at most `silent_max`;
    one seen before `away_before` is away."""

    now: datetime
    waits_after: datetime
    away_before: datetime
    silent_factor: int
    silent_min: timedelta
    silent_max: timedelta
    limit: int
    offset: int = 0
    activity: Activity | None = None
    contains: str = ""


@dataclass(frozen=True, slots=True)
class SurveyedInstance:
    """An instance and what it does. `session_id` and `purpose`: the session of its last call that named
    one; None if the caller may not see that. `blocked_by`: the lease that it waits for, as somebody else
    holds it; of a task, the lease of the claim."""

    instance: Instance
    agent_type: str
    activity: Activity
    session_id: str | None
    purpose: str | None
    blocked_by: Lease | None

    @property
    def doing_since(self) -> datetime:
        """Since when it does so: waits, is silent, or has said so itself; else when it was last seen."""
        one = self.instance
        if one.waits_for is not None and one.waits_since is not None:
            return one.waits_since
        is_quiet = self.activity in (Activity.SILENT, Activity.AWAY)
        if one.since is None or is_quiet or not one.status:
            return one.last_seen
        return one.since


@dataclass(frozen=True, slots=True)
class SurveyedAgent:
    """An agent with its instances, the last seen first."""

    agent_id: str
    activity: Activity
    instances: list[SurveyedInstance]


@dataclass(frozen=True, slots=True)
class Survey:
    """The agents of one page, and the numbers of all. `blocks`: the instances that wait for what
    another one holds, those that wait longest first, at most MAX_BLOCKS. `is_complete`: all instances
    were looked at."""

    counts: Mapping[Activity, int]
    agents: list[SurveyedAgent]
    has_more: bool
    blocks: list[SurveyedInstance]
    is_complete: bool


class UnreadIn(NamedTuple):
    """A question for `count_unread`: which messages of a session an agent has not read. `names`: only
    those addressed to one of these audience keys."""

    session_id: str
    agent_id: str
    names: tuple[str, ...]


class Fleet(Protocol):
    """The agents of which an instance was seen within the last day."""

    async def survey(self, caller: Caller, query: SurveyQuery) -> Survey:
        """Return one page of the agents by (activity in the order of Activity, last seen, id), and
        the numbers of all. The most active instance counts for its agent, and any blocked one.

        A wait for something in a session that the caller may not see is left out, as if the instance
        did not wait. The cost grows with the instances, up to MAX_SURVEYED of them.
        """

    async def count_unread(self, asked: Sequence[UnreadIn]) -> dict[tuple[str, str], int]:
        """Return how many messages of others follow the agent's stored cursor, by session and agent;
        nothing for an agent that has no cursor there. The cost does not depend on how many messages
        there are. No policy is applied: callers choose the names."""

    async def list_task_titles(
        self, tasks: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], str]:
        """Return the titles of these tasks, by session and id. No policy is applied."""
