"""Check leases and claims of tasks: one holder at a time, tokens that grow, stale ones refused."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from prove.history import History, Operation, Outcome, find_operations
from prove.promises import Broken, Promise

Place = tuple[str | None, str]

UNSURE_S = 30.0
"""For so long an attempt without an answer may have taken the lease, and hold it: a fault and a lease."""


@dataclass(frozen=True)
class Taking:
    """An answer that gave, or renewed, a holding: of `agent` with `token`, for `ttl_s`."""

    agent: str
    token: int
    ttl_s: float
    operation: Operation

    @property
    def begins_at(self) -> float:
        return self.operation.acked_at

    @property
    def sure_until(self) -> float:
        """The server counts from a moment after the call was invoked."""
        return self.operation.invoked_at + self.ttl_s

    @property
    def gone_after(self) -> float:
        return self.operation.acked_at + self.ttl_s


class Leases:
    """Everything that was done with one lease, or with the claims of one task."""

    def __init__(self) -> None:
        self.takings: list[Taking] = []
        self.unsure: list[Operation] = []  # attempts to take it without an answer
        self.endings: list[tuple[int, Operation]] = []
        self.fenced: list[tuple[int, Operation]] = []
        self.in_vain: list[Operation] = []  # attempts that did not get it


def check_leases(history: History, *, bound_s: float, grace_s: float) -> Iterator[Broken]:
    for (_, name), leases in _collect(history).items():
        yield from _check_waits(name, leases, history, bound_s, grace_s)
        yield from _check_holders(name, leases)
        yield from _check_tokens(name, leases)
        yield from _check_fenced(name, leases)


def _collect(history: History) -> dict[Place, Leases]:
    found: dict[Place, Leases] = defaultdict(Leases)
    for operation in find_operations(history.of("acquire_lease")):
        arguments = operation.arguments
        leases = found[arguments.get("session_id"), arguments["name"]]
        if operation.outcome is Outcome.UNKNOWN:
            leases.unsure.append(operation)
        elif operation.outcome is Outcome.OK and operation.answer["acquired"]:
            token, ttl_s = operation.answer["fencing_token"], arguments["ttl_seconds"]
            # A call that waits is given the lease at some time while it waits.
            leases.takings.append(Taking(operation.agent, token, ttl_s, operation))
        elif operation.outcome is Outcome.OK:
            leases.in_vain.append(operation)
    for operation in find_operations(history.of("claim_task")):
        task = operation.answer["task"] if operation.outcome is Outcome.OK else None
        if task is not None:
            leases = found[operation.arguments["session_id"], f"task:{task['id']}"]
            token, ttl_s = task["fencing_token"], operation.arguments["ttl_seconds"]
            leases.takings.append(Taking(operation.agent, token, ttl_s, operation))
    for operation in find_operations(history.of("release_lease", "finish_task")):
        arguments = operation.arguments
        name = arguments["name"] if "name" in arguments else f"task:{arguments['task_id']}"
        leases = found[arguments.get("session_id"), name]
        leases.endings.append((arguments["fencing_token"], operation))
        if "name" not in arguments:
            leases.fenced.append((arguments["fencing_token"], operation))
    for operation in find_operations(history.of("add_message", "set_memory")):
        arguments = operation.arguments
        if "lease" in arguments:
            leases = found[arguments.get("session_id"), arguments["lease"]]
            leases.fenced.append((arguments["fencing_token"], operation))
    return found


def _check_waits(
    name: str, leases: Leases, history: History, bound_s: float, grace_s: float
) -> Iterator[Broken]:
    """Nobody waits in vain for a lease that surely nobody holds any more."""
    for operation in leases.in_vain:
        until = operation.acked_at
        since = until - bound_s
        if (
            operation.invoked_at > since
            or any(since - UNSURE_S < one.invoked_at < until for one in leases.unsure)
            or any(
                taking.operation.invoked_at < until and _find_end(taking, leases) > since
                for taking in leases.takings
            )
            or history.overlaps_fault(since, until, grace_s=grace_s)
        ):
            continue
        text = f"{operation.agent} waited in vain for {name}, free for {bound_s:g} s"
        yield Broken(Promise.NOT_WOKEN, text, operation.numbers)


def _find_end(taking: Taking, leases: Leases) -> float:
    """Return when the holding had surely ended."""
    ends = [
        ending.acked_at
        for token, ending in leases.endings
        if token == taking.token and _has_ended(ending)
    ]
    return min([taking.gone_after, *ends])


def _check_holders(name: str, leases: Leases) -> Iterator[Broken]:
    """The times in which agents surely held it do not overlap."""
    held: list[tuple[float, float, Taking]] = []
    for taking in leases.takings:
        until = taking.sure_until
        for token, ending in leases.endings:
            if token == taking.token and ending.agent == taking.agent:
                until = min(until, ending.invoked_at)
        for other in leases.takings:  # a renewal may shorten it
            if other.token == taking.token and other.operation.invoked_at > taking.begins_at:
                until = min(until, other.sure_until)
        if taking.begins_at < until:
            held.append((taking.begins_at, until, taking))
    held.sort(key=lambda one: one[:2])
    furthest: tuple[float, Taking] | None = None
    for begin, until, taking in held:
        if furthest is not None and begin < furthest[0] and taking.agent != furthest[1].agent:
            other = furthest[1]
            text = (
                f"{name} was held by {other.agent} with token {other.token} and by {taking.agent}"
                f" with {taking.token} for {min(until, furthest[0]) - begin:.2f} s"
            )
            calls = (*other.operation.numbers, *taking.operation.numbers)
            yield Broken(Promise.TWO_HOLDERS, text, calls)
        if furthest is None or until > furthest[0]:
            furthest = (until, taking)


def _check_tokens(name: str, leases: Leases) -> Iterator[Broken]:
    holders: dict[int, Taking] = {}
    for taking in leases.takings:
        first = holders.setdefault(taking.token, taking)
        if first.agent != taking.agent:
            text = f"token {taking.token} of {name} was given to {first.agent} and {taking.agent}"
            calls = (*first.operation.numbers, *taking.operation.numbers)
            yield Broken(Promise.TOKEN_REUSED, text, calls)
    newest: Taking | None = None
    events = [(taking.operation.invoked_at, 1, taking) for taking in leases.takings]
    events += [(taking.begins_at, 0, taking) for taking in leases.takings]
    for _, is_begin, taking in sorted(events, key=lambda event: event[:2]):
        if not is_begin:
            if newest is None or taking.token > newest.token:
                newest = taking
        elif newest is not None and taking.token < newest.token:
            text = f"token {taking.token} of {name} was given after {newest.token}"
            calls = (*newest.operation.numbers, *taking.operation.numbers)
            yield Broken(Promise.TOKEN_REUSED, text, calls)


def _check_fenced(name: str, leases: Leases) -> Iterator[Broken]:
    """Nothing is done with a token after a newer one was given, after its end, or after its time."""
    for token, write in leases.fenced:
        if write.outcome is not Outcome.OK:
            continue
        newer = [
            taking
            for taking in leases.takings
            if taking.token > token and taking.begins_at < write.invoked_at
        ]
        text = f"{write.agent} used token {token} of {name}"
        if newer:
            calls = (*newer[0].operation.numbers, *write.numbers)
            yield Broken(Promise.STALE_TOKEN, f"{text} after {newer[0].token} was given", calls)
            continue
        ended = [
            ending
            for ended_token, ending in leases.endings
            if ended_token == token
            and ending is not write
            and _has_ended(ending)
            and ending.acked_at < write.invoked_at
        ]
        if ended:
            calls = (*ended[0].numbers, *write.numbers)
            yield Broken(Promise.STALE_TOKEN, f"{text} after it had ended it", calls)
            continue
        given = [taking for taking in leases.takings if taking.token == token]
        may_be_renewed = any(attempt.agent == write.agent for attempt in leases.unsure)
        gone_after = max((taking.gone_after for taking in given), default=math.inf)
        if gone_after < write.invoked_at and not may_be_renewed:
            late_s = write.invoked_at - gone_after
            calls = (*given[-1].operation.numbers, *write.numbers)
            yield Broken(Promise.STALE_TOKEN, f"{text} {late_s:.2f} s after its time", calls)


def _has_ended(ending: Operation) -> bool:
    return ending.outcome is Outcome.OK and ending.answer.get("released", True)
