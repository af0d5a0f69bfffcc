"""Check memory entries: versions without gaps, no update lost, nothing read after its time.

An entry that is never deleted and never expires is checked as a whole: the writes are applied in the
order of their versions. An entry that one agent uses, one call after the other, may also be deleted
and expire: its possible states are followed from call to call.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prove.history import Call, History, Operation, Outcome, find_operations
from prove.promises import Broken, Promise

Place = tuple[str | None, str | None, str]

MAX_STATES = 300
"""Possible values that are followed; where there are more, the next read begins anew."""

MISSING = object()


def check_memory(history: History) -> Iterator[Broken]:
    places: dict[Place, list[Call]] = defaultdict(list)
    for call in history.of("set_memory", "get_memory", "delete_memory"):
        places[_place(call)].append(call)
    for (_, _, key), calls in places.items():
        may_end = any(
            call.tool == "delete_memory" or "expires_in" in call.arguments for call in calls
        )
        if not may_end:
            yield from _Entry(key, calls).check()
        elif _is_sequential(calls):
            yield from _check_sequential(key, calls)


def _place(call: Call) -> Place:
    is_shared = call.arguments.get("scope") == "shared"
    owner = None if is_shared else call.agent
    return call.arguments.get("session_id"), owner, call.arguments["key"]


def _is_sequential(calls: list[Call]) -> bool:
    return len({call.agent for call in calls}) == 1


def apply(value: Any, arguments: dict[str, Any]) -> Any:
    """Return the value after a write; `MISSING` stands for no entry, and for a refusal."""
    new = arguments.get("value", 1)
    match arguments.get("mode", "replace"):
        case "create":
            return new if value is MISSING else MISSING
        case "merge":
            return _merge({} if value is MISSING else value, new)
        case "append":
            return [new] if value is MISSING else [*value, new]
        case "increment":
            return (0 if value is MISSING else value) + new
        case _:
            return new


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged


class _Entry:
    """An entry that is never deleted and never expires."""

    def __init__(self, key: str, calls: list[Call]) -> None:
        self._key = key
        self._reads = [call for call in calls if call.tool == "get_memory"]
        writes = find_operations(call for call in calls if call.tool == "set_memory")
        self._done = [write for write in writes if write.outcome is Outcome.OK]
        self._unknown = [write for write in writes if write.outcome is Outcome.UNKNOWN]

    def check(self) -> Iterator[Broken]:
        yield from self._check_versions()
        yield from self._check_order()
        yield from self._check_reads()
        yield from self._check_values()

    def _check_versions(self) -> Iterator[Broken]:
        by_version: dict[int, Operation] = {}
        for write in self._done:
            versions = {call.answer["version"] for call in write.answers}
            version = write.answer["version"]
            if len(versions) > 1:
                text = f"one write of {self._key} was answered with the versions {versions}"
                yield Broken(Promise.DOUBLED, text, write.numbers)
            other = by_version.setdefault(version, write)
            if other is not write:
                text = f"two writes of {self._key} have version {version}"
                yield Broken(Promise.VERSION, text, (*other.numbers, *write.numbers))
            expected = write.arguments.get("expected_version")
            if expected is not None and version != expected + 1:
                text = f"{self._key} was expected at {expected} and written as {version}"
                yield Broken(Promise.VERSION, text, write.numbers)
        for read in self._reads:
            if not read.is_ok:
                continue
            at_most = sum(write.invoked_at < read.ended_at for write in self._done + self._unknown)
            if read.answer["version"] > at_most:
                text = f"{self._key} has version {read.answer['version']} after {at_most} writes"
                yield Broken(Promise.VERSION, text, (read.number,))

    def _check_order(self) -> Iterator[Broken]:
        newest: Operation | None = None
        events = [(write.invoked_at, 1, write) for write in self._done]
        events += [(write.acked_at, 0, write) for write in self._done]
        for _, is_begin, write in sorted(events, key=lambda event: event[:2]):
            version = write.answer["version"]
            if not is_begin:
                if newest is None or version > newest.answer["version"]:
                    newest = write
            elif newest is not None and version < newest.answer["version"]:
                text = (
                    f"{self._key} was written as {version} after it was acknowledged as"
                    f" {newest.answer['version']}"
                )
                yield Broken(Promise.VERSION, text, (*newest.numbers, *write.numbers))

    def _check_reads(self) -> Iterator[Broken]:
        """Every read shows at least what was acknowledged before it was asked for."""
        for read in self._reads:
            if read.outcome is Outcome.UNKNOWN:
                continue
            before = [write for write in self._done if write.acked_at < read.invoked_at]
            newest = max(before, key=lambda write: int(write.answer["version"]), default=None)
            if newest is None:
                continue
            version = read.answer["version"] if read.is_ok else 0
            if version < newest.answer["version"]:
                text = (
                    f"{read.agent} read {self._key} at version {version} after"
                    f" {newest.answer['version']} was acknowledged"
                )
                is_own = newest.agent == read.agent
                promise = Promise.OWN_WRITE_NOT_READ if is_own else Promise.STALE_READ
                if not read.is_ok:
                    promise = Promise.LOST
                yield Broken(promise, text, (*newest.numbers, read.number))

    def _check_values(self) -> Iterator[Broken]:
        """Apply the writes in the order of their versions and compare what was read."""
        writes = {write.answer["version"]: write for write in self._done}
        reads: dict[int, list[Call]] = defaultdict(list)
        for read in self._reads:
            if read.is_ok:
                reads[read.answer["version"]].append(read)
        # A state: the value, and which of the writes without an answer it contains.
        states: set[tuple[str, frozenset[int]]] | None = {("", frozenset())}
        for version in range(1, max([*writes, *reads], default=0) + 1):
            states = self._advance(states, writes.get(version))
            values = {_dump(read.answer["value"]): read for read in reads[version]}
            if len(values) > 1:
                calls = tuple(read.number for read in values.values())
                text = f"version {version} of {self._key} has {len(values)} values"
                yield Broken(Promise.UPDATE_LOST, text, calls)
                return
            for value, read in values.items():
                if states is not None:
                    fitting = {state for state in states if state[0] == value}
                    if not fitting:
                        known = sorted(state[0] for state in states)[:3]
                        text = f"{self._key} at version {version} is {value} and not {known}"
                        write = writes.get(version)
                        calls = (*(write.numbers if write else ()), read.number)
                        yield Broken(Promise.UPDATE_LOST, text[:400], calls)
                        return
                    states = fitting

    def _advance(
        self, states: set[tuple[str, frozenset[int]]] | None, write: Operation | None
    ) -> set[tuple[str, frozenset[int]]] | None:
        """Return what the entry may be one version later; None if that is too much to follow."""
        if states is None:
            return None
        after = set()
        for value, used in states:
            if write is not None:
                after.add((_applied(value, write), used))
                continue
            for place, unknown in enumerate(self._unknown):
                if place not in used:
                    after.add((_applied(value, unknown), used | {place}))
        # With no write left that it could be, the version itself is wrong and reported as that.
        return after if 0 < len(after) <= MAX_STATES else None


def _applied(value: str, write: Operation) -> str:
    return _dump(apply(json.loads(value) if value else MISSING, write.arguments))


def _dump(value: Any) -> str:
    return "" if value is MISSING else json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class _State:
    """What an entry of one agent may be. It is there until `sure_until`, and gone after `gone_after`."""

    version: int
    value: str
    sure_until: float = math.inf
    gone_after: float = math.inf
    written_by: int = -1


_NOTHING = _State(0, "")


def _check_sequential(key: str, calls: list[Call]) -> Iterator[Broken]:
    states = {_NOTHING}
    for operation in find_operations(calls):
        call = operation.attempts[-1]
        invoked_at, ended_at = operation.invoked_at, operation.acked_at
        if call.tool == "delete_memory" and operation.outcome is Outcome.UNKNOWN:
            return  # it has no idempotency key, so it may be done at any later time
        if call.tool == "set_memory":
            if operation.outcome is Outcome.REFUSED:
                continue
            written = {_write(state, operation) for state in _split(states, invoked_at, ended_at)}
            if operation.outcome is Outcome.UNKNOWN:
                states |= written
                continue
            version = operation.answer["version"]
            fitting = {state for state in written if state.version == version}
            if not fitting:
                possible = sorted(state.version for state in written)
                text = f"{key} was written as version {version}, not as one of {possible}"
                yield Broken(Promise.VERSION, text, (*_written_by(states), *operation.numbers))
                return
            states = fitting
        elif call.tool == "delete_memory":
            states = {_NOTHING}
        elif call.outcome is not Outcome.UNKNOWN:
            broken = _read(key, states, call)
            if broken is not None:
                yield broken
                return
            states = _fitting(states, call)


def _split(states: set[_State], begin: float, end: float) -> set[_State]:
    """Return what the entry may be at some moment of this time: an expired one is nothing."""
    found = {state for state in states if begin <= state.gone_after}
    if any(state.sure_until < end for state in states):
        found.add(_NOTHING)
    return found


def _write(state: _State, operation: Operation) -> _State:
    arguments = operation.arguments
    value = _applied(state.value, operation)
    ttl_s = arguments.get("expires_in")
    sure_until, gone_after = state.sure_until, state.gone_after
    if ttl_s is not None:
        sure_until, gone_after = operation.invoked_at + ttl_s, operation.acked_at + ttl_s
    elif arguments.get("mode", "replace") in ("replace", "create"):
        sure_until = gone_after = math.inf
    return _State(state.version + 1, value, sure_until, gone_after, operation.attempts[-1].number)


def _fitting(states: set[_State], read: Call) -> set[_State]:
    if not read.is_ok:
        return {_NOTHING}
    version, value = read.answer["version"], _dump(read.answer["value"])
    return {
        state
        for state in _split(states, read.invoked_at, read.ended_at)
        if (state.version, state.value) == (version, value)
    }


def _read(key: str, states: set[_State], read: Call) -> Broken | None:
    calls = (*_written_by(states), read.number)
    possible = _split(states, read.invoked_at, read.ended_at)
    if not read.is_ok:
        if _NOTHING in possible:
            return None
        return Broken(Promise.LOST, f"{read.agent} did not find its {key}", calls)
    if _fitting(states, read):
        return None
    version, value = read.answer["version"], _dump(read.answer["value"])
    for state in states:
        if (state.version, state.value) == (version, value):
            late_s = read.invoked_at - state.gone_after
            text = f"{read.agent} read {key} {late_s:.2f} s after its time"
            return Broken(Promise.EXPIRED_SERVED, text, calls)
    text = f"{read.agent} read {key} at version {version}, which is not what it has written"
    return Broken(Promise.OWN_WRITE_NOT_READ, text, calls)


def _written_by(states: set[_State]) -> tuple[int, ...]:
    return tuple(sorted({state.written_by for state in states if state.written_by >= 0}))
