"""Run a command for each message: bounded in time and in number, without a shell."""

from __future__ import annotations

import collections
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shared_context_server.remote.notices import show_message, show_message_json

Message = dict[str, Any]

PLACEHOLDERS: dict[str, Callable[[Message], str]] = {
    "{text}": show_message,
    "{json}": show_message_json,
    "{sender}": lambda message: str(message["sender"]),
    "{session_id}": lambda message: str(message["session_id"]),
    "{seq}": lambda message: str(message["seq"]),
}
"""What a whole argument of the command stands for. `{text}` and `{json}` begin with characters of
ours, so no content of a message is taken for an option of the command."""
MINUTE_S = 60.0
_END_S = 2.0  # from SIGTERM to SIGKILL
_BRACES = re.compile(r"\{[a-z_]+\}")


class CommandError(ValueError):
    """The command line is not one that can be run. The message is for the user."""


class MessageCommand:
    """A command with placeholders. `timeout_s` bounds one run, `per_minute` the number of runs.

    Runs follow one another, in the order of messages. Raises CommandError.
    """

    def __init__(
        self, line: str, *, timeout_s: float, per_minute: int, note: Callable[[str], None]
    ) -> None:
        try:
            self._words = shlex.split(line)
        except ValueError as exc:
            raise CommandError(f"--exec: {exc}.") from exc
        if not self._words:
            raise CommandError("--exec names no command.")
        if self._words[0] in PLACEHOLDERS:
            raise CommandError(f"--exec: begin with a program. {self._words[0]} is an argument.")
        for word in self._words:
            if word not in PLACEHOLDERS and _BRACES.search(word):
                raise CommandError(
                    f"--exec: {word!r} is no placeholder. Whole arguments can be "
                    f"{', '.join(PLACEHOLDERS)}."
                )
        self._timeout_s = timeout_s
        self._starts: collections.deque[float] = collections.deque(maxlen=per_minute)
        self._note = note

    def run(self, message: Message) -> None:
        """Run it for this message, when the rate allows it. A failure is noted."""
        full = len(self._starts) == self._starts.maxlen
        if full and (pause_s := self._starts[0] + MINUTE_S - time.monotonic()) > 0:
            self._note(f"--exec runs again in {pause_s:.0f} s: it is limited by --exec-per-minute.")
            time.sleep(pause_s)
        self._starts.append(time.monotonic())
        words = [
            PLACEHOLDERS[word](message) if word in PLACEHOLDERS else word for word in self._words
        ]
        try:
            # stdout is for messages; what the command prints goes to stderr.
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
            )
        except (OSError, ValueError) as exc:
            self._note(f"--exec: {words[0]} cannot be run: {exc}")
            return
        try:
            code = process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            _end_group(process)
            self._note(f"--exec: {words[0]} was stopped after {self._timeout_s:g} s.")
        except BaseException:
            _end_group(process)
            raise
        else:
            if code:
                self._note(f"--exec: {words[0]} ended with exit code {code}.")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the command with the processes of its group: those it has started, unless they have left it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
