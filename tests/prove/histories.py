"""Small histories written by hand, for the tests of the checker."""

from __future__ import annotations

import math
from typing import Any

from prove.checks import check
from prove.history import EVENT, EVENTS_WAY, LISTENED, NOTIFIED, Call, Fault, History, Outcome
from prove.promises import Promise

SESSION = "session_1"
WITHIN = 0.5  # seconds that a call takes, unless a test says otherwise


class Story:
    """Builds a history call by call; each takes half a second, from the time it is given."""

    def __init__(self) -> None:
        types = {"alice": "claude", "bob": "claude", "carol": "gpt"}
        self.history = History(agents=types, admins={"auditor"})

    def call(
        self,
        at: float,
        agent: str,
        tool: str,
        answer: dict[str, Any] | None = None,
        *,
        code: str = "",
        until: float | None = None,
        is_final: bool = False,
        way: str = "REST",
        **arguments: Any,
    ) -> Call:
        """`answer` None: none came, unless there is a code; then it was refused."""
        outcome = Outcome.OK if answer is not None else Outcome.UNKNOWN
        outcome = Outcome.REFUSED if code else outcome
        ended_at = math.inf if outcome is Outcome.UNKNOWN else at + WITHIN
        call = Call(
            len(self.history.calls),
            agent,
            tool,
            arguments,
            at,
            ended_at if until is None else until,
            outcome,
            answer or {},
            code,
            way,
            is_final=is_final,
        )
        self.history.calls.append(call)
        return call

    def fault(self, begin: float, end: float) -> None:
        self.history.faults.append(Fault("a fault", begin, end))

    # Messages

    def write(self, at: float, agent: str, content: str, seq: int | None, **more: Any) -> Call:
        """`seq` None: no answer came."""
        answer = None if seq is None else {"seq": seq, "message_id": seq}
        return self.call(
            at, agent, "add_message", answer, session_id=SESSION, content=content, **more
        )

    def read(
        self, at: float, agent: str, after_seq: int, *messages: dict[str, Any], **more: Any
    ) -> Call:
        """A page that says that nothing is behind it, unless `more` says otherwise."""
        answer = {
            "messages": list(messages),
            "has_more": False,
            "next_after_seq": messages[-1]["seq"] if messages else after_seq,
            "total_count": len(messages),
        } | more
        arguments = {"session_id": SESSION, "after_seq": after_seq}
        return self.call(at, agent, "get_messages", answer, **arguments)

    def end(self, *messages: dict[str, Any]) -> None:
        """What an admin reads at the end."""
        answer = {"messages": list(messages), "has_more": False, "next_after_seq": len(messages)}
        self.call(
            100,
            "auditor",
            "get_messages",
            answer | {"total_count": len(messages)},
            is_final=True,
            session_id=SESSION,
            after_seq=0,
        )

    # Those who wait

    def wait(self, at: float, until: float, agent: str, *messages: dict[str, Any]) -> Call:
        answer = {
            "messages": list(messages),
            "next_after_seq": messages[-1]["seq"] if messages else 0,
        }
        return self.call(
            at,
            agent,
            "wait_for_messages",
            answer,
            until=until,
            session_id=SESSION,
            after_seq=0,
        )

    def stream(
        self,
        begin: float,
        end: float,
        agent: str,
        *told: tuple[float, dict[str, Any]],
        session_id: str | None = SESSION,
    ) -> None:
        place = {"stream": agent, "session_id": session_id, "after": 0}
        self.call(begin, agent, LISTENED, {}, until=end, way=EVENTS_WAY, **place)
        for at, message in told:
            self.call(begin, agent, EVENT, message, until=at, **place)

    def listen(self, begin: float, end: float, agent: str, *told: float) -> None:
        place = {"stream": agent, "session_id": SESSION}
        self.call(begin, agent, LISTENED, {}, until=end, way="MCP", **place)
        for at in told:
            self.call(at, agent, NOTIFIED, {}, until=at, **place)

    # Memory, leases, tasks

    def store(self, at: float, agent: str, version: int | None, **arguments: Any) -> Call:
        answer = None if version is None else {"version": version}
        return self.call(at, agent, "set_memory", answer, key="k", **arguments)

    def load(
        self, at: float, agent: str, version: int | None, value: Any = None, **arguments: Any
    ) -> Call:
        """`version` None: it was not found."""
        if version is None:
            return self.call(at, agent, "get_memory", code="MEMORY_NOT_FOUND", key="k", **arguments)
        answer = {"version": version, "value": value}
        return self.call(at, agent, "get_memory", answer, key="k", **arguments)

    def take(self, at: float, agent: str, token: int, ttl: int = 10) -> Call:
        answer = {"acquired": True, "fencing_token": token}
        place = {"session_id": SESSION, "name": "lease", "ttl_seconds": ttl}
        return self.call(at, agent, "acquire_lease", answer, **place)

    def release(self, at: float, agent: str, token: int) -> Call:
        place = {"session_id": SESSION, "name": "lease", "fencing_token": token}
        return self.call(at, agent, "release_lease", {"released": True}, **place)

    def finish(self, at: float, agent: str, token: int, key: str) -> Call:
        task = {"session_id": SESSION, "task_id": 1, "fencing_token": token}
        return self.call(at, agent, "finish_task", {"task": {}}, idempotency_key=key, **task)

    def claim(self, at: float, agent: str, token: int, key: str) -> Call:
        answer = {"task": {"id": 1, "fencing_token": token}}
        place = {"session_id": SESSION, "ttl_seconds": 2, "idempotency_key": key}
        return self.call(at, agent, "claim_task", answer, **place)

    def find(self) -> set[Promise]:
        return {broken.promise for broken in check(self.history, bound_s=2, grace_s=1)}


def message(seq: int, content: str, sender: str = "alice", **more: Any) -> dict[str, Any]:
    return {
        "id": seq,
        "session_id": SESSION,
        "seq": seq,
        "content": content,
        "sender": sender,
        "sender_type": "claude",
        "visibility": "public",
        "recipients": [],
        "metadata": {},
    } | more
