"""Check the logs as they were read at the end: nothing lost, doubled, missing or in a wrong order."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import accumulate

from prove.history import Call, History, JsonObject, Operation, Outcome, find_operations
from prove.promises import Broken, Promise


class Log:
    """The messages of one session as the last read of an admin shows them, and who wrote them when."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.messages: dict[int, JsonObject] = {}
        self.seqs: list[int] = []  # as they were read
        self.pages: list[int] = []
        self.writes: dict[int, Operation] = {}

    def invoked_at(self, seq: int) -> float:
        write = self.writes.get(seq)
        return -math.inf if write is None else write.invoked_at

    def acked_at(self, seq: int) -> float:
        write = self.writes.get(seq)
        return math.inf if write is None else write.acked_at


class View:
    """The messages of a log that one agent may see."""

    def __init__(self, log: Log, seqs: list[int]) -> None:
        self.seqs = seqs
        self._invoked = sorted(log.invoked_at(seq) for seq in seqs)
        acks = sorted((log.acked_at(seq), seq) for seq in seqs)
        self._acked = [at for at, _ in acks]
        self._newest = list(accumulate((seq for _, seq in acks), max))

    def between(self, after_seq: int, up_to_seq: int) -> list[int]:
        """Return the seqs after one seq and up to another."""
        begin, end = bisect_right(self.seqs, after_seq), bisect_right(self.seqs, up_to_seq)
        return self.seqs[begin:end]

    def count_acked(self, before: float) -> int:
        return bisect_left(self._acked, before)

    def count_invoked(self, before: float) -> int:
        return bisect_left(self._invoked, before)

    def newest_acked(self, before: float) -> int:
        """Return the highest seq that was acknowledged before a time; 0 if none was."""
        count = self.count_acked(before)
        return self._newest[count - 1] if count else 0


class Logs:
    """All sessions' logs, and what each agent may see of them."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._views: dict[tuple[str, str], View] = {}
        self._logs: dict[str, Log] = {}
        self.sessions: dict[str, Operation] = {}
        self.deleted: dict[str, float] = {}
        self.writes = find_operations(history.of("add_message"))
        for call in history.of("create_session"):
            if call.is_ok:
                self.sessions[call.answer["session_id"]] = Operation([call])
        for call in history.of("delete_session"):
            if call.outcome is not Outcome.REFUSED:
                session_id = call.arguments["session_id"]
                self.deleted[session_id] = min(
                    call.invoked_at, self.deleted.get(session_id, math.inf)
                )
        for call in history.of("get_messages"):
            if call.is_final and call.is_ok:
                self._read(call)
        by_content: dict[tuple[str, str], Operation] = {}
        for write in self.writes:
            by_content[write.arguments["session_id"], write.arguments["content"]] = write
        for log in self:
            for seq, message in log.messages.items():
                place = (log.session_id, message["content"])
                if place in by_content:
                    log.writes[seq] = by_content[place]

    def __iter__(self) -> Iterator[Log]:
        return iter(self._logs.values())

    def find(self, session_id: str) -> Log | None:
        """Return the log; None if nobody read it at the end."""
        return self._logs.get(session_id)

    def may_see(self, agent: str, message: JsonObject) -> bool:
        """Whether the message is for this agent."""
        if agent in self._history.admins:
            return True
        session = self.sessions.get(message["session_id"])
        if session is not None and session.arguments.get("access") == "invited":
            members = [session.agent, *session.arguments.get("participants", ())]
            if agent not in members:
                return False
        match message["visibility"]:
            case "public":
                return True
            case "private":
                return agent in (message["sender"], *message["recipients"])
            case "agent_only":
                return bool(self._history.agents.get(agent) == message["sender_type"])
            case _:
                return False

    def view(self, log: Log, agent: str) -> View:
        key = (log.session_id, agent)
        if key not in self._views:
            seqs = [seq for seq in sorted(log.messages) if self.may_see(agent, log.messages[seq])]
            self._views[key] = View(log, seqs)
        return self._views[key]

    def _read(self, call: Call) -> None:
        session_id = call.arguments["session_id"]
        log = self._logs.setdefault(session_id, Log(session_id))
        log.pages.append(call.number)
        for message in call.answer["messages"]:
            log.seqs.append(message["seq"])
            log.messages[message["seq"]] = message


def count_early_timestamps(history: History) -> int:
    """Return how many messages have an earlier timestamp than one before them. No error: only one
    process on SQLite promises an order."""
    count = 0
    for log in Logs(history):
        times = [log.messages[seq]["timestamp"] for seq in sorted(log.messages)]
        latest = accumulate(times, max)
        count += sum(time < before for time, before in zip(times[1:], latest, strict=False))
    return count


def check_logs(history: History, logs: Logs) -> Iterator[Broken]:
    for log in logs:
        yield from _check_log(log)
    for write in logs.writes:
        yield from _check_write(write, logs.find(write.arguments["session_id"]))
    yield from _check_order(logs)
    yield from _check_deleted(history, logs)


def _check_log(log: Log) -> Iterator[Broken]:
    if log.seqs != list(range(1, len(log.seqs) + 1)):
        wrong = next(place for place, seq in enumerate(log.seqs, 1) if seq != place)
        after = log.seqs[wrong - 2] if wrong > 1 else 0
        text = f"the log of {log.session_id} goes from {after} to {log.seqs[wrong - 1]}"
        near = (log.writes.get(log.seqs[wrong - 1]), log.writes.get(after))
        calls = tuple(number for write in near if write for number in write.numbers)
        yield Broken(Promise.GAP, text, calls or tuple(log.pages))
    times = Counter(message["content"] for message in log.messages.values())
    for content, count in times.items():
        if count > 1 and not _is_task(log, content):
            seqs = [seq for seq, message in log.messages.items() if message["content"] == content]
            text = f"{content!r} stands {count} times in {log.session_id}, at {seqs}"
            yield Broken(Promise.DOUBLED, text, log.writes[seqs[0]].numbers)


def _is_task(log: Log, content: str) -> bool:
    """Whether the server wrote it, of a task: then the text may come again."""
    return not any(
        message["content"] == content and seq in log.writes for seq, message in log.messages.items()
    )


def _check_write(write: Operation, log: Log | None) -> Iterator[Broken]:
    content, session_id = write.arguments["content"], write.arguments["session_id"]
    answers = {(call.answer["seq"], call.answer["message_id"]) for call in write.answers}
    if len(answers) > 1:
        text = f"one write of {content!r} was answered with {sorted(answers)}"
        yield Broken(Promise.DOUBLED, text, write.numbers)
    if log is None:
        return
    there = [seq for seq, message in log.messages.items() if message["content"] == content]
    if write.outcome is Outcome.OK:
        seq = write.answer["seq"]
        if seq not in there:
            text = f"{content!r} was acknowledged as {seq} in {session_id} and is not there"
            yield Broken(Promise.LOST, text, write.numbers)
    elif write.outcome is Outcome.REFUSED and there:
        text = f"{content!r} was refused ({write.first.code}) and stands at {there}"
        yield Broken(Promise.DONE_THOUGH_REFUSED, text, write.numbers)


def _check_order(logs: Logs) -> Iterator[Broken]:
    """A write that was acknowledged before another one began has the smaller seq."""
    placed: dict[str, list[tuple[float, int, int, Operation]]] = defaultdict(list)
    for log in logs:
        for seq, write in log.writes.items():
            placed[log.session_id].append((write.invoked_at, 1, seq, write))
            if write.acked_at < math.inf:
                placed[log.session_id].append((write.acked_at, 0, seq, write))
    for session_id, events in placed.items():
        newest: tuple[int, Operation] | None = None
        for _, is_begin, seq, write in sorted(events, key=lambda event: event[:3]):
            if not is_begin:
                if newest is None or seq > newest[0]:
                    newest = (seq, write)
            elif newest is not None and seq < newest[0] and newest[1] is not write:
                text = (
                    f"in {session_id} the write at {seq} began after the one at {newest[0]} was"
                    " acknowledged"
                )
                yield Broken(Promise.REORDERED, text, (*newest[1].numbers, *write.numbers))


def _check_deleted(history: History, logs: Logs) -> Iterator[Broken]:
    gone: dict[str, Call] = {}
    for call in history.of("delete_session"):
        if call.is_ok:
            gone.setdefault(call.arguments["session_id"], call)
    for call in history.calls:
        deletion = gone.get(call.arguments.get("session_id", ""))
        if deletion is None or call.tool == "delete_session" or not call.is_ok:
            continue
        if call.tool not in ("event", "notified", "listened") and (
            call.invoked_at > deletion.ended_at
        ):
            text = f"{call.agent} used {call.arguments['session_id']} after its deletion"
            own = deletion.agent == call.agent
            promise = Promise.OWN_WRITE_NOT_READ if own else Promise.STALE_READ
            yield Broken(promise, text, (deletion.number, call.number))
    for session_id in logs.sessions:
        if session_id not in logs.deleted:
            for call in history.calls:
                if (
                    call.code == "SESSION_NOT_FOUND"
                    and call.arguments.get("session_id") == session_id
                    and logs.may_see(
                        call.agent,
                        {"session_id": session_id, "visibility": "public"},
                    )
                ):
                    text = f"{session_id}, which nobody deleted, was not found by {call.agent}"
                    yield Broken(Promise.LOST, text, (call.number,))
