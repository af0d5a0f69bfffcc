"""Calls tools of a running server over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar
from urllib.parse import quote

from shared_context_server.cli.failures import CommandFailed, find_exit_code
from shared_context_server.cli.hub.calls import Answer, Call, make_failure
from shared_context_server.remote import exits
from shared_context_server.remote.access import Access, AccessError
from shared_context_server.remote.calls import (
    AGENT_FIELD,
    CallError,
    Unreachable,
    call_tools,
    get_json,
)
from shared_context_server.remote.events import EventStream, StreamEvent

T = TypeVar("T")

CALL_S = 30.0
LONGEST_PAUSE_S = 2.0  # between attempts: a person is looking
_CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
_MISSING = 404
_OLD_HINT = "It may be a server of another version: `scs doctor` compares them."
_TRANSPORT_HINT = "Is it a Shared Context Server? `scs status` shows which one is found."


class HttpHub:
    """The server of an access. `find_access` finds it again after an interruption, when it may have
    come back on another port or with another key.

    Unless the user has named the agent (`is_agent_named`), the agent that the key is bound to counts.
    """

    def __init__(
        self, access: Access, find_access: Callable[[], Access], *, is_agent_named: bool = True
    ) -> None:
        self._access = access
        self._find_access = find_access
        self._is_agent_named = is_agent_named
        self._is_bound = False  # the key, to an agent that the server knows

    @property
    def place(self) -> str:
        return self._access.url

    @property
    def agent_id(self) -> str:
        return self._access.agent_id or ""

    def call_all(self, calls: Sequence[Call]) -> list[Answer]:
        return self._ask(lambda access, deadline: call_tools(access, calls, deadline))

    def get_fleet(self, limit: int, cursor: str | None) -> Answer:
        path = f"/fleet?limit={limit}" + ("" if cursor is None else f"&cursor={quote(cursor)}")
        return self._ask(lambda access, deadline: get_json(access, path, deadline))

    def _ask(self, ask: Callable[[Access, float], T]) -> T:
        """Ask the server. Raises CommandFailed if it refuses, or cannot be reached."""
        try:
            return ask(self._access, time.monotonic() + CALL_S)
        except CallError as exc:
            if self._has_dropped_name(exc):
                return self._ask(ask)
            if exc.code:
                raise self._make_failure(exc, exc.code) from exc
            hint = _OLD_HINT if exc.status == _MISSING else _TRANSPORT_HINT
            raise CommandFailed(f"{self.place}: {exc}", hint) from exc
        except Unreachable as exc:
            self._refresh()  # for the next call: it may be back on another port
            raise CommandFailed(exc.text, exc.advice) from exc

    @contextmanager
    def follow(
        self, session_id: str | None, last_id: int | None, note: Callable[[str], None]
    ) -> Generator[Iterator[StreamEvent]]:
        stream = EventStream(self._refresh, session_id, last_id, note, LONGEST_PAUSE_S)
        events = stream.follow()
        try:
            yield events
        except CallError as exc:
            raise self._make_failure(exc, exc.code or _CODES.get(exc.status, "")) from exc
        except ValueError as exc:
            raise CommandFailed(str(exc), exit_code=exits.USAGE) from exc
        finally:
            events.close()

    def _make_failure(self, exc: CallError, code: str) -> CommandFailed:
        if code == "UNAUTHENTICATED" and self._access.key_source:
            hint = f"The key is that of {self._access.key_source}: correct it, or give another one."
            return CommandFailed(str(exc), hint, exits.REFUSED)
        if exc.field == AGENT_FIELD:
            hint = "Name an agent that the key is for with --as, or SCS_AGENT_ID."
            return CommandFailed(str(exc), hint, find_exit_code(code))
        return make_failure(str(exc), code)

    def _has_dropped_name(self, exc: CallError) -> bool:
        """Whether the key was bound to another agent than the default one, which is left out now."""
        if self._is_agent_named or self._is_bound or exc.field != AGENT_FIELD:
            return False
        self._is_bound = True
        self._leave_name_out()
        return True

    def _leave_name_out(self) -> None:
        self._access.headers.pop("X-Agent-ID", None)
        self._access.agent_id = None

    def _refresh(self) -> Access:
        with suppress(AccessError, CommandFailed):  # without a server the last address counts
            self._access = self._find_access()
            if self._is_bound:
                self._leave_name_out()
        return self._access
