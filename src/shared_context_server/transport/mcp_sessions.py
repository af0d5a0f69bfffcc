"""Limits of open MCP sessions, per caller and in total (MCP_SESSIONS=stateful)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Message, Receive, Scope, Send

from shared_context_server.auth.addresses import network_of
from shared_context_server.auth.connection import Connection
from shared_context_server.auth.middleware import current_connection
from shared_context_server.errors import RateLimited, Unavailable

RETRY_AFTER_S = 30
_SESSION_HEADER = b"mcp-session-id"


class McpSessionLimits:
    """Refuses new sessions over a limit.

    `by_caller` is for one agent or one anonymous address. `by_key` is for all agents of one key, or
    all anonymous callers: otherwise these could use up all sessions. `total` is for all managers.
    `note_limited` is called with the name of each limit that is reached.
    """

    def __init__(
        self,
        managers: tuple[StreamableHTTPSessionManager, ...],
        *,
        by_caller: int,
        by_key: int,
        total: int,
        note_limited: Callable[[str], None],
    ) -> None:
        self._managers = managers
        self._by_caller = by_caller
        self._by_key = by_key
        self._total = total
        self._note_limited = note_limited
        self._open: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._opening: defaultdict[tuple[str, str], int] = defaultdict(int)

    async def serve(
        self, manager: StreamableHTTPSessionManager, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the manager serve a request that opens a session. Raises RateLimited if the caller has
        too many sessions, Unavailable if there are too many in total."""
        owner = _owner_of(current_connection.get())
        counts = self._count()
        of_key = sum(count for other, count in counts.items() if other[0] == owner[0])
        if sum(len(manager._server_instances) for manager in self._managers) >= self._total:
            self._note_limited("max_mcp_sessions")
            raise Unavailable("Too many MCP sessions are open.", wait_s=RETRY_AFTER_S)
        if counts[owner] >= self._by_caller or of_key >= self._by_key:
            self._note_limited("max_mcp_sessions_per_caller")
            raise RateLimited(RETRY_AFTER_S, "Too many MCP sessions of this caller are open.")

        async def note_session(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                for name, value in message["headers"]:
                    if name == _SESSION_HEADER:
                        self._open[owner].add(value.decode("latin-1"))
            await send(message)

        self._opening[owner] += 1
        try:
            await manager.handle_request(scope, receive, note_session)
        finally:
            self._opening[owner] -= 1
            if not self._opening[owner]:
                del self._opening[owner]

    def _count(self) -> Counter[tuple[str, str]]:
        """The number of sessions of each owner. Removes sessions that have ended."""
        for other, session_ids in list(self._open.items()):
            session_ids &= {
                session_id
                for session_id in session_ids
                if any(session_id in manager._server_instances for manager in self._managers)
            }
            if not session_ids:
                del self._open[other]
        return Counter({owner: len(ids) for owner, ids in self._open.items()}) + Counter(
            self._opening
        )


def _owner_of(connection: Connection) -> tuple[str, str]:
    caller = connection.caller
    if caller.is_anonymous:
        return ("", network_of(connection.address))
    return (caller.key_id, caller.agent_id)
