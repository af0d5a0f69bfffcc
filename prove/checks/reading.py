"""Check what readers were shown: pages, counts and read cursors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from prove.checks.logs import Log, Logs, View
from prove.history import Call, History, JsonObject
from prove.promises import Broken, Promise


def check_reading(history: History, logs: Logs) -> Iterator[Broken]:
    for call in history.calls:
        if not call.is_ok:
            continue
        match call.tool:
            case "get_messages":
                yield from _check_page(call, logs)
            case "search_context":
                shown = [result["message"] for result in call.answer["results"]]
                yield from check_visible(call, shown, logs)
            case "list_sessions":
                yield from _check_listing(call, logs)
    yield from _check_cursors(history, logs)


def check_visible(call: Call, shown: list[JsonObject], logs: Logs) -> Iterator[Broken]:
    """Nothing is shown that is not for the agent, or that is not in the log at the end."""
    for message in shown:
        if not logs.may_see(call.agent, message):
            text = (
                f"{call.agent} was shown seq {message['seq']} of {message['session_id']}, which is"
                f" {message['visibility']} of {message['sender']}"
            )
            yield Broken(Promise.PRIVATE_SEEN, text, (call.number,))
        log = logs.find(message["session_id"])
        if log is None:
            continue
        kept = log.messages.get(message["seq"])
        if kept is None or kept["content"] != message["content"]:
            text = f"{call.agent} has seen {message['content']!r} at {message['seq']}; it is gone"
            yield Broken(Promise.LOST, text, (call.number,))


def check_sequence(call: Call, seqs: list[int]) -> Iterator[Broken]:
    """Each once, in ascending order."""
    for before, after in pairwise(seqs):
        if after == before:
            yield Broken(
                Promise.DOUBLED, f"{call.agent} was shown seq {after} twice", (call.number,)
            )
        elif after < before:
            text = f"{call.agent} was shown seq {after} after {before}"
            yield Broken(Promise.REORDERED, text, (call.number,))


def _check_page(call: Call, logs: Logs) -> Iterator[Broken]:
    shown = call.answer["messages"]
    seqs = [message["seq"] for message in shown]
    yield from check_sequence(call, seqs)
    yield from check_visible(call, shown, logs)
    log = logs.find(call.arguments["session_id"])
    if log is None or call.is_final:
        return
    view = logs.view(log, call.agent)
    after_seq = call.arguments.get("after_seq")
    begin = after_seq if after_seq is not None else (seqs[0] - 1 if seqs else 0)
    yield from find_missing(
        Promise.GAP, call, log, begin, call.answer["next_after_seq"], seqs, logs
    )
    if after_seq is None or not call.answer["has_more"]:
        yield from _check_end(call, log, view, max(seqs, default=begin))
    yield from _check_count(
        call, view.count_acked(call.invoked_at), call.answer["total_count"], view
    )


def find_missing(
    promise: Promise,
    call: Call,
    log: Log,
    after_seq: int,
    up_to_seq: int,
    seqs: list[int],
    logs: Logs,
    *,
    without_own: bool = False,
) -> Iterator[Broken]:
    """Everything that the agent may see between two cursors was shown."""
    for seq in logs.view(log, call.agent).between(after_seq, up_to_seq):
        if seq in seqs or (without_own and log.messages[seq]["sender"] == call.agent):
            continue
        text = (
            f"{call.agent} read {log.session_id} from {after_seq} to {up_to_seq} and was not shown"
            f" {seq}"
        )
        write = log.writes.get(seq)
        yield Broken(promise, text, (*(write.numbers if write else ()), call.number))


def _check_end(call: Call, log: Log, view: View, last: int) -> Iterator[Broken]:
    """What was acknowledged before a reader asked for the end is shown to it."""
    newest = view.newest_acked(call.invoked_at)
    if newest <= last:
        return
    missed = [seq for seq in view.between(last, newest) if log.acked_at(seq) < call.invoked_at]
    write = log.writes[missed[-1]]
    is_own = any(log.messages[seq]["sender"] == call.agent for seq in missed)
    text = f"{call.agent} read {log.session_id} up to {last}, though {missed} had been acknowledged"
    promise = Promise.OWN_WRITE_NOT_READ if is_own else Promise.STALE_READ
    yield Broken(promise, text, (*write.numbers, call.number))


def _check_count(call: Call, at_least: int, count: int, view: View) -> Iterator[Broken]:
    at_most = view.count_invoked(call.ended_at)
    if count > at_most:
        text = f"{call.agent} was told of {count} messages and may see at most {at_most}"
        yield Broken(Promise.PRIVATE_SEEN, text, (call.number,))
    if count < at_least:
        text = f"{call.agent} was told of {count} messages, though {at_least} were acknowledged"
        yield Broken(Promise.STALE_READ, text, (call.number,))


def _check_listing(call: Call, logs: Logs) -> Iterator[Broken]:
    for session in call.answer["sessions"]:
        log = logs.find(session["session_id"])
        if log is not None:
            view = logs.view(log, call.agent)
            at_least = view.count_acked(call.invoked_at)
            yield from _check_count(call, at_least, session["message_count"], view)


def _check_cursors(history: History, logs: Logs) -> Iterator[Broken]:
    """A stored cursor never moves back, and what is unread is counted of what is visible."""
    marks: dict[tuple[str, str], list[Call]] = {}
    for call in history.of("mark_read"):
        if not call.is_ok:
            continue
        place = (call.agent, call.arguments["session_id"])
        seq = call.answer["seq"]
        before = [mark for mark in marks.get(place, ()) if mark.ended_at < call.invoked_at]
        further = max(before, key=lambda mark: int(mark.answer["seq"]), default=None)
        if seq < call.arguments["seq"] or (further is not None and seq < further.answer["seq"]):
            text = f"the cursor of {call.agent} is {seq} in {place[1]} and was further"
            earlier = (further.number,) if further is not None else ()
            yield Broken(Promise.CURSOR_WENT_BACK, text, (*earlier, call.number))
        marks.setdefault(place, []).append(call)
        log = logs.find(place[1])
        if log is not None:
            others = [
                found
                for found in logs.view(log, call.agent).seqs
                if found > seq
                and log.messages[found]["sender"] != call.agent
                and log.invoked_at(found) < call.ended_at
            ]
            if call.answer["unread"] > len(others):
                text = (
                    f"{call.agent} was told of {call.answer['unread']} unread messages and may see"
                    f" {len(others)}"
                )
                yield Broken(Promise.PRIVATE_SEEN, text, (call.number,))
