"""The command `tail`: prints the newest messages of sessions, and follows them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Protocol

from cyclopts import Parameter

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.hub.calls import Hub, call, call_each, list_pages, require_success
from shared_context_server.cli.hub.options import AsJson, HubOptions
from shared_context_server.cli.show.messages import Message, MessagePrinter
from shared_context_server.cli.show.values import note
from shared_context_server.remote import exits
from shared_context_server.remote.events import LogSetBack, StreamEvent
from shared_context_server.remote.readers import STDOUT, end_without_reader

MAX_LINES = 1000
MAX_NAMED = 100  # sessions: a call of each fits into one batch
LISTED_SESSIONS = 2000  # of which the latest are found, when none is named
LATEST_SESSIONS = 100  # whose newest messages are read then


def tail(
    *session: Annotated[str, Parameter(help="Ids of sessions; default: all.")],
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], negative="", help="Go on with what comes.")
    ] = False,
    lines: Annotated[int, Parameter(name=["--lines", "-n"], help="How many messages.")] = 10,
    sender: Annotated[
        tuple[str, ...], Parameter(negative="", help="Only of this agent; repeatable.")
    ] = (),
    max_chars: Annotated[int, Parameter(help="Characters of a content that are printed.")] = 4000,
    as_json: AsJson = False,
) -> int:
    """Print the newest messages of sessions, or of all, and with -f those that come.

    With -f it reconnects by itself; no message is repeated or left out. It ends when the one session
    that is named is closed (0) or deleted (3).
    """
    if not 0 <= lines <= MAX_LINES:
        raise CommandFailed(f"--lines must be 0 to {MAX_LINES}.", exit_code=exits.USAGE)
    if not 1 <= max_chars <= 100_000:
        raise CommandFailed("--max-chars must be 1 to 100000.", exit_code=exits.USAGE)
    if len(session) > MAX_NAMED:
        raise CommandFailed(f"Name at most {MAX_NAMED} sessions.", exit_code=exits.USAGE)
    if follow:
        end_without_reader(STDOUT)
    printer = MessagePrinter(as_json=as_json, names_session=len(session) != 1, max_chars=max_chars)
    with hub_options.open_hub() as hub, suppress(KeyboardInterrupt):
        run = Tail(hub, tuple(dict.fromkeys(session)), sender, printer)
        run.print_newest(lines)
        return run.follow() if follow else exits.DONE
    return exits.INTERRUPTED


class Printer(Protocol):
    """Takes the messages, one after the other."""

    def print(self, message: Message) -> None: ...


class Tail:
    """The sessions that are followed, and what was printed of each."""

    def __init__(
        self, hub: Hub, session_ids: Sequence[str], senders: Sequence[str], printer: Printer
    ) -> None:
        self._hub = hub
        self._session_ids = session_ids
        self._senders = senders
        self._printer = printer
        self._printed: dict[str, int] = {}  # by session: the last seq
        self._last_id = 0  # of the newest message that is known
        self._closed_at: int | None = None  # the last seq of the one session, once it is closed

    @property
    def _one_session(self) -> str | None:
        return self._session_ids[0] if len(self._session_ids) == 1 else None

    def print_newest(self, count: int) -> None:
        """Print the newest messages, in the order of their ids."""
        names = self._session_ids
        if self._one_session is None:
            latest = self._list_latest()
            # Read first: what comes while the sessions are read is followed from here.
            newest = self._read(latest, 1, ())
            self._last_id = max((int(message["id"]) for message in newest), default=0)
            names = names or latest
        else:
            self._note_last_seq(self._read(names, 1, ()))
        found = self._read(names, count, self._senders) if count else []
        if not self._senders:
            self._note_last_seq(found)
        found.sort(key=lambda message: int(message["id"]))
        for message in found[max(0, len(found) - count) :]:
            self._printer.print(message)

    def _note_last_seq(self, messages: Sequence[Message]) -> None:
        for message in messages:
            session_id, seq = message["session_id"], int(message["seq"])
            self._printed[session_id] = max(seq, self._printed.get(session_id, 0))

    def follow(self) -> int:
        """Print what comes, until the one session is closed or deleted. Return the exit code."""
        one = self._one_session
        start: int | None = self._last_id if one is None else self._printed.get(one, 0)
        while True:
            try:
                with self._hub.follow(one, start, note) as events:
                    for event in events:
                        self._take(event)
                        if self._is_over():
                            note(f"The session {one} is closed.")
                            return exits.DONE
                return exits.FAILED  # the store was closed
            except LogSetBack:
                note(
                    "The store was set back to an earlier state. Messages that came meanwhile may "
                    "be missing."
                )
                start = None
                self._printed.clear()

    def _take(self, event: StreamEvent) -> None:
        one = self._one_session
        if event.kind == "message":
            self._take_message(event.data)
        elif one is None:
            return
        elif event.kind == "session_deleted":
            raise CommandFailed(f"The session {one} was deleted.", exit_code=exits.NOT_FOUND)
        elif event.kind == "session_closed":
            self._closed_at = 0  # this event comes behind all messages
        elif event.kind == "opened":
            answer = call(self._hub, "get_session", session_id=one)
            if answer["session"]["status"] == "closed":
                seqs = [int(message["seq"]) for message in answer["messages"]]
                self._closed_at = max(seqs, default=0)

    def _take_message(self, message: Message) -> None:
        session_id, seq = message["session_id"], int(message["seq"])
        if self._session_ids and session_id not in self._session_ids:
            return
        if seq <= self._printed.get(session_id, 0):
            return
        self._printed[session_id] = seq
        if self._is_wanted(message):
            self._printer.print(message)

    def _is_over(self) -> bool:
        one = self._one_session
        return (
            one is not None
            and self._closed_at is not None
            and self._printed.get(one, 0) >= self._closed_at
        )

    def _is_wanted(self, message: Message) -> bool:
        return not self._senders or message["sender"] in self._senders

    def _read(
        self, session_ids: Sequence[str], count: int, senders: Sequence[str]
    ) -> list[Message]:
        """The newest messages of each session, or of each of these senders in it. Of sessions that
        were not named, those that have been deleted meanwhile are left out."""
        calls = [
            ("get_messages", {"session_id": one, "limit": count, **sender})
            for one in session_ids
            for sender in ([{"sender": name} for name in senders] or [{}])
        ]
        answers = call_each(self._hub, calls)
        if self._session_ids:
            answers = [require_success(answer) for answer in answers]
        return [message for answer in answers for message in answer.get("messages", ())]

    def _list_latest(self) -> list[str]:
        """The sessions with the latest activity, which have the newest messages of all."""
        answer = list_pages(self._hub, "list_sessions", "sessions", LISTED_SESSIONS, status="all")
        found = [one for one in answer["sessions"] if one["message_count"]]
        found.sort(key=lambda one: str(one["last_activity"]), reverse=True)
        return [one["session_id"] for one in found[:LATEST_SESSIONS]]
