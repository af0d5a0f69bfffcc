"""Checks the check: plants a fault in a copy of the server, and expects that the load reports it.

A check that has never failed proves little. Each fault is a small change of the source, in a copy. The
load of the rehearsal runs against a server of that copy, which is killed and started again under way.
Needs neither root nor debootstrap.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.deploy.rehearsal.base import CannotRehearseError
from tests.deploy.rehearsal.containers import POLL_S
from tests.deploy.rehearsal.rollout import Outcome, measure

ROOT = Path(__file__).parents[3]
START_S = 60.0
EVERY = 20  # the fault happens to each message whose seq is a multiple of it


@dataclass(frozen=True, slots=True)
class Fault:
    """`old` is there once in the file, and is replaced by `new`. `words` are of what is then reported."""

    name: str
    file: str
    old: str
    new: str
    words: str

    def plant(self, source: Path) -> None:
        path = source / "shared_context_server" / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise CannotRehearseError(f"the fault {self.name!r} no longer fits {self.file}")
        path.write_text(text.replace(self.old, self.new))


_APPEND = "        added = append_to_log(connection, new, session.last_seq + 1)\n"
FAULTS = (
    Fault(
        "a message is acknowledged and not stored",
        "storage/sqlite/messages.py",
        _APPEND,
        '        if new.content.endswith("/7"):\n'
        "            return AddedMessage(session.last_seq, session.last_seq, new.created_at)\n"
        f"{_APPEND}",
        "lost, doubled",
    ),
    Fault(
        "a message is stored twice",
        "storage/sqlite/messages.py",
        _APPEND,
        f"{_APPEND}        if added.seq % {EVERY} == 0:\n"
        "            append_to_log(connection, new, added.seq + 1)\n",
        "lost, doubled",
    ),
    Fault(
        "an event stream leaves out a message",
        "rest/events.py",
        "            if isinstance(item, Message):\n",
        f"            if isinstance(item, Message) and item.seq % {EVERY} == 0:\n"
        "                continue\n"
        "            if isinstance(item, Message):\n",
        "a listener saw something else",
    ),
)


def check_the_check(home: Path) -> list[str]:
    """What the load did not report, and what it reported without a fault."""
    logging.disable(logging.INFO)  # FastMCP's client logs the progress of each waiting call
    wrong = []
    for fault in (None, *FAULTS):
        outcome = _run(home, fault)
        name = "no fault" if fault is None else fault.name
        print(f"planted: {name}; reported: {'; '.join(outcome.broken) or 'nothing'}", flush=True)
        if fault is None and outcome.broken:
            outcome.table.print()
            wrong.append("the load reports a fault of a server that has none planted")
        elif fault is not None and not any(fault.words in broken for broken in outcome.broken):
            outcome.table.print()
            wrong.append(f"the load does not report that {fault.name}")
    return wrong


def _run(home: Path, fault: Fault | None) -> Outcome:
    shutil.rmtree(home, ignore_errors=True)
    source = home / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    if fault is not None:
        fault.plant(source)
    with _Server.open(home / "data", source) as server:

        async def roll() -> None:
            await asyncio.to_thread(server.restart)

        return asyncio.run(measure("self-check", server.url, server.api_key, roll))


class _Server:
    """A process that serves the copy. `restart` kills it with SIGKILL."""

    def __init__(self, data: Path, source: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self.api_key = f"http://127.0.0.1:{port}", secrets.token_hex(32)
        serve = ("serve", "--data-dir", str(data), "--port", str(port))
        self._command = [sys.executable, "-m", "shared_context_server", *serve]
        self._log = data.with_suffix(".log")
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(source),
            "SCS_API_KEY": self.api_key,
            "SCS_RATE_LIMIT": "1000000/minute",  # one key stands for all agents
        }
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def open(cls, data: Path, source: Path) -> Iterator[_Server]:
        server = cls(data, source)
        try:
            server.restart()
            yield server
        finally:
            server.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        self.kill()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, cwd=self._log.parent, stdout=log, stderr=log
            )
        asyncio.run(self._wait_until_ready())

    async def _wait_until_ready(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            for _ in range(int(START_S / POLL_S)):
                try:
                    if (await client.get("/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(POLL_S)
        raise CannotRehearseError(f"the server did not start; see {self._log}")
