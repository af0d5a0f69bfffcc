"""An agent of the demo: it calls tools over HTTP as any client does, at the pace of the demo."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from shared_context_server.remote.access import Access
from shared_context_server.remote.calls import CallError, call_tools

CALL_S = 30.0  # for one call, beyond the time that it waits by itself
_WAIT_S = 3.0  # of one waiting call, at the usual speed

Answer = dict[str, Any]


class Ended(Exception):
    """The demo is over."""


class Failed(Exception):
    """The demo cannot go on. The message is for the user."""


class DemoAgent:
    """One agent. Its pauses and choices follow from its name and the seed.

    All methods that call the server raise Ended once `stopping` is set, and Failed if the server
    refuses a call.
    """

    def __init__(
        self,
        access: Access,
        *,
        seed: int,
        speed: float,
        stopping: threading.Event,
        tell: Callable[[str, str], None],
    ) -> None:
        assert access.agent_id is not None
        self.name = access.agent_id
        self.chance = random.Random(f"{seed} {self.name}")  # noqa: S311 - no secret follows from it
        self.wait_s = _WAIT_S / speed
        """How long a waiting call waits. The script repeats it, so that the demo can end in between."""
        self._access = access
        self._speed = speed
        self._stopping = stopping
        self._tell = tell

    def tell(self, text: str) -> None:
        """Tell the user of the demo."""
        self._tell(self.name, text)

    def call(self, tool: str, **arguments: Any) -> Answer:
        """The result of a tool."""
        if self._stopping.is_set():
            raise Ended
        return self.call_at_end(tool, **arguments)

    def call_at_end(self, tool: str, **arguments: Any) -> Answer:
        """The same, also when the demo is over."""
        try:
            [result] = call_tools(self._access, [(tool, arguments)], time.monotonic() + CALL_S)
        except (CallError, OSError) as exc:
            raise self._failure(f"{tool}: {exc}") from exc
        if not result["success"]:
            raise self._failure(f"{tool}: {result['error']}")
        return result

    def pause(self, seconds: float) -> None:
        """Let time pass, as if the agent worked."""
        if self._stopping.wait(seconds * self.chance.uniform(0.8, 1.2) / self._speed):
            raise Ended

    def say(self, session_id: str, content: str, **arguments: Any) -> Answer:
        """Add a message."""
        return self.call("add_message", session_id=session_id, content=content, **arguments)

    def set_status(self, state: str, text: str) -> None:
        self.call("set_status", state=state, text=text)

    def take_mentions(self, session_id: str, timeout_s: float = 0) -> list[Answer]:
        """Wait so long for messages to this agent, and mark them as read."""
        news = self.call(
            "wait_for_messages",
            session_id=session_id,
            mentions_me=True,
            timeout_seconds=timeout_s,
        )
        messages: list[Answer] = news["messages"]
        if messages:
            self.call("mark_read", session_id=session_id, seq=messages[-1]["seq"])
        return messages

    def _failure(self, reason: str) -> Exception:
        # What was on its way when the demo ended may fail, since its session is deleted.
        return Ended() if self._stopping.is_set() else Failed(f"{self.name}: {reason}")
