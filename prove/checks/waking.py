"""Check those who wait: calls, streams and subscriptions are told of everything, and in time."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from prove.checks.logs import Log, Logs
from prove.checks.reading import check_sequence, check_visible, find_missing
from prove.history import EVENT, EVENTS_WAY, LISTENED, NOTIFIED, Call, History
from prove.promises import Broken, Promise


def check_waking(
    history: History, logs: Logs, *, bound_s: float, grace_s: float
) -> Iterator[Broken]:
    waiting = Waiting(history, logs, bound_s, grace_s)
    for call in history.of("wait_for_messages"):
        if call.is_ok:
            yield from waiting.check_wait(call)
    yield from waiting.check_streams()
    yield from waiting.check_subscriptions()


class Waiting:
    def __init__(self, history: History, logs: Logs, bound_s: float, grace_s: float) -> None:
        self._history = history
        self._logs = logs
        self._bound_s = bound_s
        self._grace_s = grace_s

    def check_wait(self, call: Call) -> Iterator[Broken]:
        """Of each session that the call names, everything up to its next cursor, and in time."""
        yield from check_visible(call, call.answer["messages"], self._logs)
        for session_id, begin, end in _spans(call):
            shown = call.answer["messages"]
            seqs = [one["seq"] for one in shown if one["session_id"] == session_id]
            yield from check_sequence(call, seqs)
            log = self._logs.find(session_id)
            if log is None:
                continue
            yield from find_missing(
                Promise.STREAM_GAP, call, log, begin, end, seqs, self._logs, without_own=True
            )
            for seq in self._logs.view(log, call.agent).between(begin, len(log.seqs)):
                if log.messages[seq]["sender"] != call.agent:
                    yield from self._check_in_time(call, log, seq, call.ended_at)

    def _check_in_time(self, call: Call, log: Log, seq: int, told_at: float) -> Iterator[Broken]:
        """The message was told within the bound, counted from when both it and the waiter were there."""
        write = log.writes.get(seq)
        if write is None:
            return
        due_at = max(call.invoked_at, write.acked_at)
        if told_at <= due_at + self._bound_s or self._history.overlaps_fault(
            due_at, told_at, grace_s=self._grace_s
        ):
            return
        text = (
            f"{call.agent} was told of seq {seq} in {log.session_id} {told_at - due_at:.1f} s after"
            " it was acknowledged"
        )
        yield Broken(Promise.NOT_WOKEN, text, (*write.numbers, call.number))

    def check_streams(self) -> Iterator[Broken]:
        """Of each stream everything between its begin and the last message that it brought."""
        streams: dict[str, list[Call]] = defaultdict(list)
        for call in self._history.of(EVENT):
            streams[call.arguments["stream"]].append(call)
        for events in streams.values():
            session_id = events[0].arguments["session_id"]
            yield from check_sequence(events[0], [_event_id(event) for event in events])
            for event in events:
                yield from check_visible(event, [event.answer], self._logs)
            if session_id is None:
                yield from self._check_everything(events)
            elif (log := self._logs.find(session_id)) is not None:
                seqs = [event.answer["seq"] for event in events]
                begin = events[0].arguments["after"]
                last = max(events, key=_event_id)
                yield from find_missing(
                    Promise.STREAM_GAP, last, log, begin, max(seqs), seqs, self._logs
                )
                for event in events:
                    yield from self._check_in_time(event, log, event.answer["seq"], event.ended_at)

        for call in self._history.of(LISTENED):
            log = self._logs.find(call.arguments["session_id"])
            if log is not None and call.way == EVENTS_WAY:
                events = streams[call.arguments["stream"]]
                yield from self._check_silence(call, log, events)

    def _check_silence(self, call: Call, log: Log, events: list[Call]) -> Iterator[Broken]:
        """After its last message a stream was not silent while there was something to tell."""
        last = max(map(_event_id, events), default=call.arguments["after"])
        for seq in self._logs.view(log, call.agent).between(last, len(log.seqs)):
            yield from self._check_in_time(call, log, seq, call.ended_at)

    def _check_everything(self, events: list[Call]) -> Iterator[Broken]:
        """Of the stream of all sessions, whose ids are those of the messages."""
        begin, last = events[0].arguments["after"], max(events, key=_event_id)
        brought = {_event_id(event) for event in events}
        for log in self._logs:
            for seq in self._logs.view(log, last.agent).seqs:
                message_id = log.messages[seq]["id"]
                if begin < message_id <= _event_id(last) and message_id not in brought:
                    text = (
                        f"the stream of {last.agent} went from {begin} to {_event_id(last)} without"
                        f" {message_id}, seq {seq} of {log.session_id}"
                    )
                    write = log.writes.get(seq)
                    calls = (*(write.numbers if write else ()), last.number)
                    yield Broken(Promise.STREAM_GAP, text, calls)

    def check_subscriptions(self) -> Iterator[Broken]:
        told: dict[str, list[float]] = defaultdict(list)
        for call in self._history.of(NOTIFIED):
            told[call.arguments["stream"]].append(call.ended_at)
        for call in self._history.of(LISTENED):
            log = self._logs.find(call.arguments["session_id"])
            if log is None or call.way == EVENTS_WAY:
                continue
            times = told[call.arguments["stream"]]
            for seq in self._logs.view(log, call.agent).seqs:
                write = log.writes.get(seq)
                # A change before it was open is not reported, one at its end may be cut off.
                if (
                    write is None
                    or write.invoked_at < call.invoked_at
                    or write.acked_at + self._bound_s > call.ended_at
                ):
                    continue
                place = bisect_left(times, write.invoked_at)
                told_at = times[place] if place < len(times) else call.ended_at
                yield from self._check_in_time(call, log, seq, told_at)


def _spans(call: Call) -> list[tuple[str, int, int]]:
    """Return each session with the cursors before and after the call."""
    asked, answer = call.arguments, call.answer
    if "session_ids" not in asked:
        return [(asked["session_id"], asked["after_seq"], answer["next_after_seq"])]
    return [
        (session_id, asked["cursors"][session_id], answer["cursors"][session_id])
        for session_id in asked["session_ids"]
    ]


def _event_id(event: Call) -> int:
    message = event.answer
    return int(message["id"] if event.arguments["session_id"] is None else message["seq"])
