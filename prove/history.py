"""The history of a run: every call of every agent with its outcome and times, and every fault.

Times are seconds of time.monotonic(). Imports nothing of the server, like everything that judges it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]

EVENT = "event"
"""The tool of a record that is a message which a stream brought."""

NOTIFIED = "notified"
"""The tool of a record that is a notification of an MCP subscription."""

LISTENED = "listened"
"""The tool of a record for the time in which a stream was open."""

EVENTS_WAY = "/events"


class Outcome(StrEnum):
    """What a client knows of its call. `UNKNOWN`: no answer came, or one that leaves it open whether the
    call was done. Such a call may be done at any time after it was invoked, also much later."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Call:
    """One attempt of an agent. `way`: how it was sent; `server`: to which address. `is_final`: made
    after the last fault, to see what is there."""

    number: int
    agent: str
    tool: str
    arguments: JsonObject
    invoked_at: float
    ended_at: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    answer: JsonObject = field(default_factory=dict)
    code: str = ""
    way: str = "REST"
    server: str = ""
    is_final: bool = False

    @property
    def is_ok(self) -> bool:
        return self.outcome is Outcome.OK


@dataclass(slots=True)
class Fault:
    """Something that was done to the system, from its begin until the system was as before."""

    name: str
    began_at: float
    ended_at: float = math.inf
    target: str = ""


@dataclass(slots=True)
class History:
    """What one run saw. `agents`: the type of each agent. `admins` see all messages."""

    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    agents: dict[str, str] = field(default_factory=dict)
    admins: set[str] = field(default_factory=set)

    def of(self, *tools: str) -> Iterator[Call]:
        return (call for call in self.calls if call.tool in tools)

    def overlaps_fault(self, begin: float, end: float, *, grace_s: float) -> bool:
        """Whether a fault, or the time after it in which the system recovers, touches this time."""
        return any(
            fault.began_at <= end and begin <= fault.ended_at + grace_s for fault in self.faults
        )

    def write(self, path: Path) -> None:
        """Write one JSON object a line: who took part, the faults, then the calls."""
        with path.open("w", encoding="utf-8") as file:
            head = {"agents": self.agents, "admins": sorted(self.admins)}
            for kind, records in (
                ("agents", [head]),
                ("fault", [asdict(fault) for fault in self.faults]),
                ("call", [asdict(call) for call in self.calls]),
            ):
                for record in records:
                    file.write(json.dumps({"kind": kind, **_finite(record)}) + "\n")

    @classmethod
    def read(cls, path: Path) -> History:
        history = cls()
        with path.open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                kind = record.pop("kind")
                if kind == "agents":
                    history.agents, history.admins = record["agents"], set(record["admins"])
                    continue
                for name in ("invoked_at", "began_at", "ended_at"):
                    if name in record and record[name] is None:
                        record[name] = math.inf
                if kind == "fault":
                    history.faults.append(Fault(**record))
                else:
                    record["outcome"] = Outcome(record["outcome"])
                    history.calls.append(Call(**record))
        return history


def _finite(record: JsonObject) -> JsonObject:
    return {name: None if value == math.inf else value for name, value in record.items()}


@dataclass(slots=True)
class Operation:
    """One thing that an agent wanted: a call, or all attempts with the same idempotency key."""

    attempts: list[Call]

    @property
    def first(self) -> Call:
        return self.attempts[0]

    @property
    def agent(self) -> str:
        return self.first.agent

    @property
    def arguments(self) -> JsonObject:
        return self.first.arguments

    @property
    def answers(self) -> list[Call]:
        return [call for call in self.attempts if call.is_ok]

    @property
    def answer(self) -> JsonObject:
        return self.answers[0].answer

    @property
    def invoked_at(self) -> float:
        return min(call.invoked_at for call in self.attempts)

    @property
    def acked_at(self) -> float:
        """When its success was first known; infinite if it never was."""
        return min((call.ended_at for call in self.answers), default=math.inf)

    @property
    def outcome(self) -> Outcome:
        """Refused only if no attempt can have been done: one without an answer may still run."""
        outcomes = {call.outcome for call in self.attempts}
        for outcome in (Outcome.OK, Outcome.UNKNOWN):
            if outcome in outcomes:
                return outcome
        return Outcome.REFUSED

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(call.number for call in self.attempts)


def find_operations(calls: Iterable[Call]) -> list[Operation]:
    """Join the attempts of each operation; in the order of the first ones."""
    found: dict[Any, list[Call]] = defaultdict(list)
    for call in calls:
        key = call.arguments.get("idempotency_key")
        # A key counts in one session, for one agent.
        place = (call.agent, call.arguments.get("session_id"), call.tool, key)
        found[call.number if key is None else place].append(call)
    return [Operation(attempts) for attempts in found.values()]
