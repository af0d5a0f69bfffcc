"""Find the unread messages that mention an agent and that its hooks have not told yet."""

from __future__ import annotations

from shared_context_server.remote.calls import CallError, call_tools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from shared_context_server.remote.access import Access
    from shared_context_server.remote.told import Told

    Message = dict[str, Any]

MAX_TOLD = 10  # mentions that one hook tells; the next hook tells the others
SESSIONS = 100  # the newest of an agent that are looked at, if the hook names none
LOOKED_BACK = 2000  # messages of a session in which older mentions are looked for
_AT_ONCE = 40  # sessions of one batch, with two calls each


def find_untold(
    access: Access, told: Told, session_ids: Sequence[str], deadline: float
) -> list[Message]:
    """Return the unread mentions that were not told, at most MAX_TOLD, and note them in `told`.

    `session_ids`: where to look; none means the agent's newest sessions. Where nothing is new, this
    is one request. Raises CallError, OSError or ValueError like call_tools.
    """
    if session_ids:
        candidates = dict.fromkeys(session_ids, "")
    else:
        [listed] = call_tools(access, [("list_sessions", {"limit": SESSIONS})], deadline)
        _require_success(listed)
        candidates = {
            session["session_id"]: session["last_activity"]
            for session in listed["sessions"]
            if session["unread"] and _is_new(told, session)
        }
    found: list[Message] = []
    waiting = list(_find_starts(access, told, candidates, deadline))
    for session_id, start, newest in waiting:
        room = MAX_TOLD - len(found)
        if room == 0:
            break
        mentions: list[Message] = []
        if start < newest:
            arguments = {
                "session_id": session_id,
                "after_seq": start,
                "limit": room,
                "mentions_me": True,
                "timeout_seconds": 0,
            }
            [answer] = call_tools(access, [("wait_for_messages", arguments)], deadline)
            mentions = answer.get("messages", [])  # none if the session was deleted just now
        found += mentions
        last = mentions[-1]["seq"] if mentions else 0
        if len(mentions) == room:  # there may be more
            told.note(session_id, last, "")
        else:
            told.note(session_id, max(newest, last), candidates[session_id])
    return found


def _is_new(told: Told, session: dict[str, Any]) -> bool:
    activity: str = session["last_activity"]
    return told.activity.get(session["session_id"]) != activity


def _find_starts(
    access: Access, told: Told, candidates: dict[str, str], deadline: float
) -> Iterator[tuple[str, int, int]]:
    """Yield each session with the seq after which mentions are unread and untold, and its newest."""
    session_ids = list(candidates)
    for first in range(0, len(session_ids), _AT_ONCE):
        some = session_ids[first : first + _AT_ONCE]
        calls: list[tuple[str, dict[str, Any]]] = []
        for session_id in some:
            session: dict[str, Any] = {"session_id": session_id, "limit": 1}
            calls.append(("get_messages", session))
            calls.append(("wait_for_messages", {**session, "timeout_seconds": 0}))
        results = call_tools(access, calls, deadline)
        for number, session_id in enumerate(some):
            newest, unread = results[2 * number : 2 * number + 2]
            for result in (newest, unread):
                if result.get("code") not in (None, "SESSION_NOT_FOUND"):
                    _require_success(result)
            if not (newest["success"] and unread["success"] and newest["messages"]):
                continue
            seq: int = newest["messages"][0]["seq"]
            # Without a message after the stored cursor everything is read.
            cursor = unread["messages"][0]["seq"] - 1 if unread["messages"] else seq
            start = max(told.seqs.get(session_id, 0), cursor, seq - LOOKED_BACK)
            yield session_id, start, seq


def _require_success(result: dict[str, Any]) -> None:
    if not result.get("success"):
        raise CallError(0, str(result.get("error")))
