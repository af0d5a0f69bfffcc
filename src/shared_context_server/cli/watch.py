"""The commands `watch` and `wait`: print messages as they come, for programs that read lines."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import Annotated, Any

from cyclopts import Parameter

from shared_context_server.cli.remote_options import RemoteOptions
from shared_context_server.display import show_printable
from shared_context_server.errors import ConfigurationError
from shared_context_server.remote import exits
from shared_context_server.remote.command import CommandError, MessageCommand
from shared_context_server.remote.notices import MAX_CHARS, show_message, show_message_json
from shared_context_server.remote.readers import STDOUT, end_without_reader
from shared_context_server.remote.watch import CURSOR, NOW, Ended, Wanted, Watch

ALL = "all"

SessionArgument = Annotated[str, Parameter(help="Id of the session; all for all sessions.")]
Mentions = Annotated[bool, Parameter(negative="", help="Only messages that mention the agent.")]
Senders = Annotated[tuple[str, ...], Parameter(negative="", help="Only of this agent; repeatable.")]
Since = Annotated[
    str, Parameter(help="Begin after this seq, after the agent's stored cursor, or now.")
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON lines.")]
Own = Annotated[bool, Parameter(negative="", help="The agent's own messages too.")]
MaxChars = Annotated[int, Parameter(help="Characters of a content that are printed.")]


def watch(
    session: SessionArgument = ALL,
    remote: RemoteOptions = RemoteOptions(),  # noqa: B008 - frozen
    *,
    mentions_me: Mentions = False,
    sender: Senders = (),
    since: Since = NOW,
    as_json: AsJson = False,
    include_own: Own = False,
    max_chars: MaxChars = MAX_CHARS,
    once: Annotated[
        bool, Parameter(negative="", help="End after the first message, with exit code 0.")
    ] = False,
    exec_: Annotated[
        str | None,
        Parameter(
            name="--exec",
            help="Command to run for each message of --allow-sender. Whole arguments can be {text}, "
            "{json}, {sender}, {session_id}, {seq}. No shell is used.",
        ),
    ] = None,
    allow_sender: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="Agent whose messages --exec is run for; repeatable."),
    ] = (),
    exec_timeout: Annotated[float, Parameter(help="Seconds that one run may take.")] = 30.0,
    exec_per_minute: Annotated[int, Parameter(help="Maximum number of runs in a minute.")] = 10,
) -> int:
    """Print one line for each message that comes, until the session is closed.

    Reconnects by itself; no message is repeated or left out. Exit codes: 0 the session is closed, or
    --once; 2 wrong arguments; 3 the session was deleted or does not exist; 4 the credential is
    refused; 130 and 143 SIGINT and SIGTERM.
    """
    command = None
    if exec_ is not None:
        if not allow_sender:
            raise ConfigurationError(
                "--exec needs --allow-sender: the command gets text that others write. Name the "
                "agents whose messages may start it."
            )
        if not 0 < exec_timeout <= 3600 or not 1 <= exec_per_minute <= 600:
            raise ConfigurationError(
                "--exec-timeout must be more than 0 and at most 3600 seconds, --exec-per-minute "
                "between 1 and 600."
            )
        try:
            command = MessageCommand(
                exec_, timeout_s=exec_timeout, per_minute=exec_per_minute, note=note
            )
        except CommandError as exc:
            raise ConfigurationError(str(exc)) from exc
    elif allow_sender:
        raise ConfigurationError("--allow-sender is for --exec.")
    wanted = make_wanted(remote, session, since, mentions_me, sender, own=include_own)
    write = _make_writer(max_chars, as_json=as_json)
    own = remote.require_access().agent_id

    def take(message: dict[str, Any]) -> bool:
        write(message)
        # Never for one's own messages: the command may write some.
        if command is not None and message["sender"] in allow_sender and message["sender"] != own:
            command.run(message)
        return once

    return _follow(remote, wanted, take, None)


def wait(
    session: SessionArgument = ALL,
    remote: RemoteOptions = RemoteOptions(),  # noqa: B008 - frozen
    *,
    timeout: Annotated[
        float | None, Parameter(help="Seconds to wait at most; default: no limit.")
    ] = None,
    mentions_me: Mentions = False,
    sender: Senders = (),
    since: Since = NOW,
    as_json: AsJson = False,
    include_own: Own = False,
    max_chars: MaxChars = MAX_CHARS,
) -> int:
    """Wait for one message and print it.

    Exit codes: 0 it has come; 124 the time is up, or the session is closed; 2, 3, 4, 130 and 143 as
    for watch.
    """
    if timeout is not None and not 0 <= timeout <= 604_800:
        raise ConfigurationError("--timeout must be between 0 and 604800 seconds.")
    wanted = make_wanted(remote, session, since, mentions_me, sender, own=include_own)
    write = _make_writer(max_chars, as_json=as_json)

    def take(message: dict[str, Any]) -> bool:
        write(message)
        return True

    return _follow(remote, wanted, take, timeout, closed=exits.TIMED_OUT)


def make_wanted(
    remote: RemoteOptions,
    session: str,
    since: str,
    mentions_me: bool,
    senders: tuple[str, ...],
    own: bool,
) -> Wanted:
    is_number = since.isascii() and since.isdigit() and len(since) <= 18
    if since not in (NOW, CURSOR) and not is_number:
        raise ConfigurationError(f"--since must be a seq, {CURSOR} or {NOW}.")
    if session == ALL and since != NOW:
        raise ConfigurationError(f"--since {since} needs one session: a seq counts in its session.")
    if mentions_me and remote.require_access().agent_id is None:
        raise ConfigurationError("--mentions-me needs --agent-id or SCS_AGENT_ID.")
    return Wanted(None if session == ALL else session, since, mentions_me, senders, own)


def _make_writer(max_chars: int, *, as_json: bool) -> Callable[[dict[str, Any]], None]:
    if not 1 <= max_chars <= 100_000:
        raise ConfigurationError("--max-chars must be between 1 and 100000.")
    show = show_message_json if as_json else show_message

    def write(message: dict[str, Any]) -> None:
        try:
            print(show(message, max_chars), flush=True)
        except BrokenPipeError:
            # Here before `end_without_reader` has noticed. What print has kept goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
            sys.exit(exits.TERMINATED)

    return write


def _follow(
    remote: RemoteOptions,
    wanted: Wanted,
    take: Callable[[dict[str, Any]], bool],
    timeout_s: float | None,
    *,
    closed: int = exits.DONE,
) -> int:
    """Hand over messages until `take` returns that it has enough. Return the exit code; `closed` is
    the one for a session that is closed."""
    signal.signal(signal.SIGTERM, _end)
    end_without_reader(STDOUT)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        with closing(Watch(remote.find_access, wanted, note).follow(deadline)) as messages:
            for message in messages:
                if take(message):
                    return exits.DONE
    except Ended as exc:
        note(str(exc))
        return closed if exc.code == exits.DONE else exc.code
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return exits.TIMED_OUT


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(exits.TERMINATED)


def note(text: str) -> None:
    """Tell the user on stderr."""
    print(f"shared-context-server: {show_printable(text)}", file=sys.stderr, flush=True)
