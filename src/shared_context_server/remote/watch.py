"""Follow messages for programs: filter them, and hand over each once."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from shared_context_server.remote import exits
from shared_context_server.remote.access import Access, AccessError
from shared_context_server.remote.calls import CallError, call_tools, name_place
from shared_context_server.remote.events import EventStream, LogSetBack, StreamEvent
from shared_context_server.services.words import Mention

NOW = "now"
CURSOR = "cursor"
CALL_S = 30.0  # for a call to find out where to begin, or whether the session is closed
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 15.0
MAX_SESSION_PAGES = 10  # of 200 sessions, to find the newest message of all
LATEST_SESSIONS = 20  # whose newest messages are compared
_EXIT_CODES = {
    "UNAUTHENTICATED": exits.REFUSED,
    "PERMISSION_DENIED": exits.REFUSED,
    "SESSION_NOT_FOUND": exits.SESSION_GONE,
}

Message = dict[str, Any]
FindAccess = Callable[[], Access]


class Ended(Exception):
    """No message will come any more. `code` is the exit code, and the message is for the user."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages are wanted; all filters must hold. `since`: NOW, CURSOR (the agent's stored
    cursor), or the seq after which to begin. `session_id` None: all sessions, since NOW only."""

    session_id: str | None
    since: str = NOW
    mentions_me: bool = False
    senders: tuple[str, ...] = ()
    own: bool = False


class Watch:
    """Wanted messages of a server, over its restarts.

    `find_access` is called again for each connection: a server may come back with another key or on
    another port. `note` is told about failures.
    """

    def __init__(
        self, find_access: FindAccess, wanted: Wanted, note: Callable[[str], None]
    ) -> None:
        self._find_access = find_access
        self._access = find_access()
        self._wanted = wanted
        self._note = note
        agent_id = self._access.agent_id
        self._mention = Mention(agent_id) if wanted.mentions_me and agent_id else None
        self._closed_at: int | None = None  # the last seq of a closed session
        self._openings = 0
        self._is_opening = False  # until the first event after the hints of what was missed
        self._first_seqs: dict[str, int] = {}  # where logs begin, as far as the user was told
        self._deadline: float | None = None

    def follow(self, deadline: float | None = None) -> Generator[Message]:
        """Yield each wanted message once, in order, until the deadline. Raises Ended."""
        self._deadline = deadline
        try:
            start = self._find_start(self._wanted.since)
            while not self._is_over():
                stream = EventStream(self._refresh, self._wanted.session_id, start, self._note)
                try:
                    with closing(stream.follow(deadline)) as events:
                        for event in events:
                            self._look_for_removed(event)
                            self._look_for_end(event, stream.last_id or 0)
                            if event.kind == "message" and self._is_wanted(event.data):
                                yield event.data
                            self._require_open(stream.last_id or 0)
                except LogSetBack:
                    self._note(
                        "The server's store was set back to an earlier state. Messages that came "
                        "meanwhile may be missing."
                    )
                    start = self._find_start(NOW)
        except CallError as exc:
            source = self._access.key_source
            told = (
                f" The key is that of {source}." if exc.code == "UNAUTHENTICATED" and source else ""
            )
            raise Ended(
                _EXIT_CODES.get(exc.code, exits.FAILED), f"{exc}{told}{exc.advice}"
            ) from exc

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _refresh(self) -> Access:
        """The current access. While no server runs, its file is missing: then the last one."""
        try:
            found = self._find_access()
        except AccessError as exc:
            self._note(str(exc))
        else:
            if self._access.is_guess or not found.is_guess:
                self._access = found
        return self._access

    # Where to begin

    def _find_start(self, since: str) -> int:
        """The id after which the stream begins."""
        session_id = self._wanted.session_id
        if session_id is None:
            return self._find_newest_id()
        if since == NOW:
            newest = self._call("get_messages", session_id=session_id, limit=1)
            return int(newest["next_after_seq"])
        if since != CURSOR:
            return int(since)
        unread = self._call("wait_for_messages", session_id=session_id, timeout_seconds=0, limit=1)
        messages = unread["messages"]
        for name, first_seq in unread.get("first_seqs", {}).items():
            self._tell_of_removed(name, None, int(first_seq))
        return int(messages[0]["seq"]) - 1 if messages else int(unread["next_after_seq"])

    def _find_newest_id(self) -> int:
        """The id of the newest message in the sessions with the latest activity."""
        sessions: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next_cursor": None}
        for _ in range(MAX_SESSION_PAGES):
            more = {} if page["next_cursor"] is None else {"cursor": page["next_cursor"]}
            page = self._call("list_sessions", limit=200, status="all", **more)
            sessions += page["sessions"]
            if page["next_cursor"] is None:
                break
        sessions.sort(key=lambda session: str(session["last_activity"]), reverse=True)
        newest = 0
        for session in sessions[:LATEST_SESSIONS]:
            answer = self._call("get_messages", session_id=session["session_id"], limit=1)
            newest = max(newest, *(int(message["id"]) for message in answer["messages"]), 0)
        return newest

    # Where to end

    def _look_for_end(self, event: StreamEvent, last_seq: int) -> None:
        """Raise Ended if the session was deleted. Note its last seq if it is closed, and tell whether
        messages after `last_seq` were removed."""
        session_id = self._wanted.session_id
        if session_id is None:
            return
        if event.kind == "session_deleted":
            raise Ended(exits.SESSION_GONE, f"The session {session_id} was deleted.")
        if event.kind == "session_closed":
            self._closed_at = 0  # this event comes behind all messages
        if event.kind == "opened":
            answer = self._call("get_session", session_id=session_id)
            self._tell_of_removed(session_id, last_seq, int(answer["session"].get("first_seq", 1)))
            if answer["session"]["status"] == "closed":
                self._closed_at = max([message["seq"] for message in answer["messages"]], default=0)

    def _require_open(self, last_seq: int) -> None:
        if self._closed_at is not None and last_seq >= self._closed_at:
            raise Ended(exits.DONE, f"The session {self._wanted.session_id} is closed.")

    # What is missing

    def _look_for_removed(self, event: StreamEvent) -> None:
        """Tell which sessions have lost messages while there was no stream of all sessions. The server
        begins each stream with that; later removals are of messages that the stream has had."""
        is_removal = event.kind == "messages_expired"
        self._openings += event.kind == "opened"
        self._is_opening = event.kind == "opened" or (self._is_opening and is_removal)
        if self._wanted.session_id is not None or not (self._is_opening and is_removal):
            return
        session_id, first_seq = str(event.data["session_id"]), int(event.data.get("first_seq", 1))
        if self._openings > 1:
            self._tell_of_removed(session_id, None, first_seq)
        else:  # from before the start
            self._first_seqs[session_id] = first_seq

    def _tell_of_removed(self, session_id: str, last_seq: int | None, first_seq: int) -> None:
        """Tell the user once that the messages between these two were removed. `last_seq` None: it is
        not known."""
        told = self._first_seqs.get(session_id, 1)
        self._first_seqs[session_id] = max(first_seq, told)
        if first_seq > max(told, (last_seq or 0) + 1):
            begin = "up to" if last_seq is None else f"{last_seq + 1} to"
            self._note(
                f"Messages {begin} {first_seq - 1} of {session_id} were removed "
                "(MESSAGE_RETENTION_DAYS)."
            )

    # Which messages

    def _is_wanted(self, message: Message) -> bool:
        wanted, agent_id = self._wanted, self._access.agent_id
        return (
            (wanted.own or message["sender"] != agent_id)
            and (not wanted.senders or message["sender"] in wanted.senders)
            and (
                self._mention is None
                or agent_id in message["recipients"]
                or self._mention.is_in(message["content"])
            )
        )

    # Calls

    def _call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool, again while the server is away. Raises CallError if it refuses, and Ended at
        the deadline."""
        pause_s = FIRST_PAUSE_S
        has_noted = False
        while True:
            try:
                limit = time.monotonic() + CALL_S
                [answer] = call_tools(self._access, [(tool, arguments)], limit)
                if answer.get("success"):
                    return answer
                if not answer.get("retryable"):
                    raise CallError(400, str(answer.get("error")), str(answer.get("code")))
                reason = name_place(self._access.url, str(answer.get("error")))
            except CallError as exc:
                if 400 <= exc.status < 500 and exc.status != 429:
                    raise
                reason = name_place(self._access.url, str(exc))
            except OSError as exc:
                reason = str(exc)
            if self._is_over():
                raise Ended(exits.TIMED_OUT, reason)
            if not has_noted:
                self._note(f"{reason} Trying again until it answers.")
                has_noted = True
            time.sleep(pause_s if self._deadline is None else min(pause_s, self._left()))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._refresh()

    def _left(self) -> float:
        assert self._deadline is not None
        return max(0.0, self._deadline - time.monotonic())
