"""Runs the agents of the demo in threads, in a session of their own, and deletes it at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from shared_context_server.cli.demo.agents import DemoAgent, Ended, Failed
from shared_context_server.cli.demo.dashboard import describe_access
from shared_context_server.cli.demo.script import PLANNER, WORKERS, plan, work
from shared_context_server.cli.demo.targets import Target

ENDS_AT: Final = "demo_ends_at"
"""In the metadata of a session: the time, in seconds since the epoch, after which no demo uses it."""
_MARGIN_S = 60.0
_JOIN_S = 60.0  # above what a call may take, after which each agent notices the end


class Demo:
    """One run of the demo. `tell` gets a line for the user."""

    def __init__(
        self, *, duration_s: float, speed: float, seed: int, tell: Callable[[str], None]
    ) -> None:
        self._duration_s = duration_s
        self._speed = speed
        self._seed = seed
        self._tell = tell
        self._stopping = threading.Event()
        self._failure: Failed | None = None
        self._started_at = 0.0

    def stop(self) -> None:
        """Make `run` end soon. May be called from a signal handler."""
        self._stopping.set()

    def run(self, server: Target) -> None:
        """Let the agents work until the time is over or `stop` was called. Raises Failed."""
        planner, *workers = (self._make_agent(server, name) for name in (PLANNER, *WORKERS))
        self._started_at = time.monotonic()
        try:
            remove_leftovers(planner)
            session_id = self._create_session(planner)
        except Ended:
            return
        introduction = threading.Thread(target=self._tell_access, args=(server,), daemon=True)
        try:
            self._say(f"Three scripted agents work for {self._duration_s:g} s; Ctrl-C ends them.")
            self._say(f"Session    {session_id}")
            self._say(f"Dashboard  {server.url}/ui")
            introduction.start()  # it takes a second or more; the agents begin meanwhile
            self._work(
                [partial(plan, planner), *(partial(work, worker) for worker in workers)], session_id
            )
        finally:
            self.stop()
            _leave([planner, *workers], session_id)
            if introduction.ident is not None:  # its process uses the data dir, which may go next
                introduction.join(_JOIN_S)
        if self._failure is not None:
            raise self._failure
        self._say("The demo is over; its session is deleted.")

    def _make_agent(self, server: Target, name: str) -> DemoAgent:
        return DemoAgent(
            server.access_of(name),
            seed=self._seed,
            speed=self._speed,
            stopping=self._stopping,
            tell=self._narrate,
        )

    def _create_session(self, planner: DemoAgent) -> str:
        created = planner.call(
            "create_session",
            purpose="Demo: three scripted agents (scs demo)",
            metadata={ENDS_AT: time.time() + self._duration_s + _MARGIN_S},
        )
        return str(created["session_id"])

    def _tell_access(self, server: Target) -> None:
        lines = describe_access(server)
        if not self._stopping.is_set():
            for line in lines:
                self._say(line)

    def _say(self, line: str) -> None:
        try:
            self._tell(line)
        except OSError:  # nobody reads any more
            self.stop()

    def _narrate(self, name: str, text: str) -> None:
        self._say(f"{time.monotonic() - self._started_at:4.0f} s  {name:<12} {text}")

    def _work(self, scripts: list[Callable[[str], None]], session_id: str) -> None:
        threads = [
            threading.Thread(target=self._follow, args=(script, session_id), daemon=True)
            for script in scripts
        ]
        for thread in threads:
            thread.start()
        self._stopping.wait(self._duration_s)
        self.stop()
        for thread in threads:
            thread.join(_JOIN_S)

    def _follow(self, script: Callable[[str], None], session_id: str) -> None:
        try:
            script(session_id)
        except Ended:
            pass
        except Failed as exc:
            self._failure = exc
            self.stop()


def remove_leftovers(planner: DemoAgent) -> None:
    """Delete the sessions of demos that were killed."""
    cursor: str | None = None
    while True:
        page = planner.call(
            "list_sessions", created_by=planner.name, status="all", limit=200, cursor=cursor
        )
        for session in page["sessions"]:
            ends_at = session["metadata"].get(ENDS_AT)
            if isinstance(ends_at, int | float) and ends_at < time.time():
                planner.call("delete_session", session_id=session["session_id"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _leave(agents: list[DemoAgent], session_id: str) -> None:
    """Clear the agents' states, and delete the session with all that is in it. A server that has ended
    meanwhile is no failure."""
    with suppress(Ended, Failed):
        for agent in agents:
            agent.call_at_end("set_status", state="done", text="")
        agents[0].call_at_end("delete_session", session_id=session_id)
