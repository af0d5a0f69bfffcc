"""Unread mentions: tell each caller once of messages that are addressed to it.

An answer to any call can then say that there is something to read. What is told is in the memory of
this process: a call costs a look-up and no query. The memory is filled

- with the messages of this process, when they are committed;
- with those of other processes, which are read once a second while anybody calls;
- with those from before, once for each agent, when it calls for the first time.

A message mentions an agent that is one of its recipients, or whose name it has as `@name`. Own
messages do not count. So each process tells once of each new mention.

Any process may remove old messages. So before mentions are told that are old enough for that, their
sessions are read.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from typing import TypeVar

from pydantic_core import to_json

from shared_context_server import policy
from shared_context_server.background_tasks import BackgroundTasks
from shared_context_server.errors import SessionNotFound, SharedContextError
from shared_context_server.models import (
    MAX_AGENT_ID_CHARS,
    Ack,
    Caller,
    JsonObject,
    Message,
    Permission,
    Session,
)
from shared_context_server.services.late_imports import MENTIONS, import_late
from shared_context_server.services.words import Mention
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import Store
from shared_context_server.storage.stored_messages import StoredMessages

CATCH_UP_INTERVAL_S = 1.0
MAX_AGENTS = 2000  # that this process remembers; with all their mentions some 40 MB
MAX_UNREAD = 32  # mentions of an agent, and as many that only some of its keys see
MAX_REMEMBERED = 64  # instances and sessions of an agent
MAX_SESSIONS = 1024  # whose readers are known
MAX_PENDING = 1000  # messages that are still to be examined
MAX_PAGES = 20  # read at once of what was written
MAX_SIGNS = 50  # @ in a message that are examined
MAX_SHOWN = 5  # sessions in an answer
PAGE = 200
# The least MESSAGE_RETENTION_DAYS, less an hour because the clocks of processes may differ.
SURELY_KEPT_FOR = timedelta(days=1) - timedelta(hours=1)
_SIGNS = ("@", "\uff20")
_BEFORE, _BEHIND = 2, MAX_AGENT_ID_CHARS + 4  # characters around an @ that decide
_READS_ALL = Caller("", "", frozenset({Permission.ADMIN}), "")  # this process itself

_READER = frozenset({Permission.READ})

_Place = tuple[str, int]
"""The session and the seq of a message."""
_Unread = dict[_Place, tuple[Message, Session]]

K = TypeVar("K")
V = TypeVar("V")

_find_mention = lru_cache(1024)(Mention)


@dataclass(frozen=True, slots=True)
class UnreadInSession:
    session_id: str
    count: int
    first_seq: int
    newest_seq: int


@dataclass(frozen=True, slots=True)
class UnreadMentions:
    """The unread mentions of an agent, by session; of the sessions at most MAX_SHOWN. `requiring_ack`:
    how many of them ask for an acknowledgement."""

    count: int
    sessions: tuple[UnreadInSession, ...]
    requiring_ack: int = 0

    def text(self) -> str:
        """One line for a model to read."""
        head = f"{self.count} unread mention{'s' if self.count != 1 else ''} of you"
        if self.requiring_ack:
            head += f" ({self.requiring_ack} to acknowledge)"
        if len(self.sessions) == 1:
            (only,) = self.sessions
            return (
                f"{head} in {only.session_id}, newest seq {only.newest_seq}: "
                f'get_messages(session_id="{only.session_id}", after_seq={only.first_seq - 1}).'
            )
        where = ", ".join(
            f"{one.count} in {one.session_id} (after_seq={one.first_seq - 1}, "
            f"newest seq {one.newest_seq})"
            for one in self.sessions
        )
        return f"{head}: {where}. Read them with get_messages."

    def meta(self) -> JsonObject:
        """The same for programs."""
        asking: JsonObject = {"requires_ack": self.requiring_ack} if self.requiring_ack else {}
        return {
            "count": self.count,
            **asking,
            "sessions": [
                {
                    "session_id": one.session_id,
                    "count": one.count,
                    "first_seq": one.first_seq,
                    "newest_seq": one.newest_seq,
                }
                for one in self.sessions
            ],
        }


@dataclass(slots=True)
class _Agent:
    """What this process knows of an agent: its unread mentions, without their contents; up to which
    seq it has read; which state was told to which instance with which rights, because another type or
    permission may see other messages. `state` grows with each mention."""

    unread: _Unread = field(default_factory=dict)
    read_up_to: dict[str, int] = field(default_factory=dict)
    told: dict[tuple[str, str, frozenset[Permission]], int] = field(default_factory=dict)
    state: int = 0


class Mentions:
    """The unread mentions that one process knows of. For the tasks of one loop."""

    def __init__(self, store: Store, *, is_on: bool) -> None:
        self._store = store
        self._is_on = is_on
        self._agents: dict[str, _Agent] = {}
        self._name_lengths: set[int] = set()
        self._sessions: dict[str, Session] = {}
        self._pending: deque[Message] = deque(maxlen=MAX_PENDING)
        self._position: int | None = None
        self._is_used = False
        self._is_examining = False
        self._tasks = BackgroundTasks("mentions")
        self._turn = asyncio.Lock()

    # What callers are told

    async def find_news(self, caller: Caller) -> UnreadMentions | None:
        """Return the caller's unread mentions if there are new ones since its instance was told last,
        else None. Only those that the caller may see count, and none in a message that was removed."""
        if not self._is_on:
            return None
        self._is_used = True
        agent = self._agents.get(caller.agent_id)
        if agent is None:
            self._meet(caller.agent_id)
            return None
        reader = caller.instance, caller.agent_type, caller.permissions
        if not agent.unread or agent.told.get(reader) == agent.state:
            return None
        _remember(agent.told, reader, agent.state)
        found = _list_seen(agent, caller)
        if any(_may_be_removed(message) for message in found):
            await self._forget_removed(agent)
            _remember(agent.told, reader, agent.state)
            found = _list_seen(agent, caller)
        return _summarize(found)

    async def _forget_removed(self, agent: _Agent) -> None:
        """Forget the mentions in messages that were removed, by any process."""
        old = {place[0] for place, (message, _) in agent.unread.items() if _may_be_removed(message)}
        for session_id in old:
            try:
                session = await self._store.sessions.get(session_id)
            except SessionNotFound:
                self.forget_session(session_id)
            except SharedContextError:
                return  # then they are told
            else:
                _forget_before(agent, session_id, session.first_seq)

    def clear_page(self, caller: Caller, session_id: str, messages: Sequence[Message]) -> None:
        """Forget the mentions among the messages that the caller was given."""
        agent = self._agents.get(caller.agent_id)
        if agent is None or not messages:
            return
        if isinstance(messages, StoredMessages):
            seqs = [row[2] for row in messages.rows]
        else:
            seqs = [message.seq for message in messages]
        for seq in seqs if agent.unread else ():
            agent.unread.pop((session_id, seq), None)
        self._note_read(agent, session_id, seqs[-1])

    def clear_up_to(self, caller: Caller, session_id: str, seq: int) -> None:
        """Forget the mentions up to this seq."""
        agent = self._agents.get(caller.agent_id)
        if agent is None:
            return
        _forget_before(agent, session_id, seq + 1)
        self._note_read(agent, session_id, seq)

    def _note_read(self, agent: _Agent, session_id: str, seq: int) -> None:
        # For mentions that this process learns of later: those are the newest of the log.
        if seq > agent.read_up_to.get(session_id, 0):
            _remember(agent.read_up_to, session_id, seq)

    def forget_session(self, session_id: str) -> None:
        """Forget the mentions in a session that was deleted."""
        self._sessions.pop(session_id, None)
        for agent in self._agents.values():
            for place in [one for one in agent.unread if one[0] == session_id]:
                del agent.unread[place]

    # How this process learns of mentions. It may learn of one twice, which changes nothing.

    def wants(self, content: str, recipients: Sequence[str]) -> bool:
        """Whether a message may mention somebody."""
        if not self._is_on:
            return False
        return bool(recipients) or _SIGNS[0] in content or _SIGNS[1] in content

    def note(self, message: Message) -> None:
        """Take a message that this process has committed."""
        self._examine_soon([message])

    async def catch_up(self) -> None:
        """Read what other processes have written, if anybody has called since. To be called every
        CATCH_UP_INTERVAL_S."""
        if not self._is_used or self._position is None:
            return
        self._is_used = False
        for _ in range(MAX_PAGES):
            page = await self._store.messages.list_new(
                _READS_ALL, after_id=self._position, limit=PAGE, is_addressed=True
            )
            self._position = page.next_after_id
            self._examine_soon(page.messages)
            if not page.has_more:
                return
        # Too far behind. What is unread to an agent is read anew when it calls, and told again.
        self._position = await self._store.messages.get_newest_id()
        self._agents.clear()

    def _meet(self, agent_id: str) -> None:
        """Begin to remember an agent, with what it has not read before."""
        if len(self._agents) >= MAX_AGENTS:
            self._agents.pop(next(iter(self._agents)))
        self._agents[agent_id] = _Agent()
        self._name_lengths.add(len(_compose(agent_id)))
        self._tasks.start(self._recover(agent_id))

    async def _recover(self, agent_id: str) -> None:
        with suppress(SharedContextError):  # then only what comes from now on is told
            async with self._turn:  # one at a time, so that new agents do not hold up other reads
                if self._position is None:
                    self._position = await self._store.messages.get_newest_id()
                found = await self._store.messages.list_unread_to(agent_id, limit=PAGE)
            if found:
                await import_late(MENTIONS)
            for message in found:
                await self._add(message, {agent_id})

    def _examine_soon(self, messages: Sequence[Message]) -> None:
        self._pending.extend(messages)
        if not self._is_examining:
            self._is_examining = True
            self._tasks.start(self._examine())

    async def _examine(self) -> None:
        try:
            await import_late(MENTIONS)
            while self._pending:
                message = self._pending.popleft()
                with suppress(SharedContextError):  # such as a session that was deleted
                    await self._add(message, set(self._find_mentioned(message)))
        finally:
            self._is_examining = False

    def _find_mentioned(self, message: Message) -> Iterator[str]:
        """Return the agents that this process knows and the message may mention."""
        for name in message.recipients:
            if name in self._agents:
                yield name
        for window, sign in _find_signs(message.content):
            for length in self._name_lengths:
                name = window[sign + 1 : sign + 1 + length]
                if name in self._agents:
                    yield name

    async def _add(self, message: Message, agent_ids: set[str]) -> None:
        """Add the message to those of the agents that it mentions."""
        mentioned = [name for name in agent_ids if _mentions(message, name)]
        if not mentioned:
            return
        session = self._sessions.get(message.session_id)
        if session is None:
            # Who may use a session never changes.
            found = await self._store.sessions.get(message.session_id)
            session = found._replace(purpose="", metadata={})
            _remember(self._sessions, message.session_id, session, MAX_SESSIONS)
        place = message.session_id, message.seq
        kept = message._replace(content="", metadata={})
        for name in mentioned:
            agent = self._agents.get(name)
            if agent is not None and message.seq > agent.read_up_to.get(message.session_id, 0):
                if place not in agent.unread:
                    agent.state += 1
                _keep_unread(agent.unread, place, (kept, session), name)

    async def finish(self) -> None:
        """Wait until all that was noted so far has been examined."""
        await self._tasks.wait()


def _list_seen(agent: _Agent, caller: Caller) -> list[Message]:
    """Return the messages with unread mentions that the caller may see."""
    return [
        message
        for message, session in agent.unread.values()
        if policy.may_read(caller)
        and policy.can_see_session(caller, session)
        and policy.can_see_message(caller, message)
    ]


def _may_be_removed(message: Message) -> bool:
    return message.timestamp < utc_now() - SURELY_KEPT_FOR


def _forget_before(agent: _Agent, session_id: str, seq: int) -> None:
    for place in [one for one in agent.unread if one[0] == session_id and one[1] < seq]:
        del agent.unread[place]


def _mentions(message: Message, agent_id: str) -> bool:
    if message.sender == agent_id:
        return False
    if agent_id in message.recipients:
        return True
    mention = _find_mention(agent_id)
    return any(mention.is_in(window) for window, _ in _find_signs(message.content))


def _find_signs(content: str) -> Iterator[tuple[str, int]]:
    """Return the text around each @ of a message, composed, and the position of the @ in it. Not the
    whole content, which may be long."""
    for at in islice(_find_positions(content), MAX_SIGNS):
        before = _compose(content[max(at - _BEFORE, 0) : at])
        yield before + _compose(content[at : at + _BEHIND]), len(before)


def _find_positions(content: str) -> Iterator[int]:
    for sign in _SIGNS:
        at = content.find(sign)
        while at >= 0:
            yield at
            at = content.find(sign, at + 1)


def _compose(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _remember(known: dict[K, V], key: K, value: V, limit: int = MAX_REMEMBERED) -> None:
    """Set the value, and forget the one that was set first if there are too many."""
    if key not in known and len(known) >= limit:
        del known[next(iter(known))]
    known[key] = value


def _keep_unread(unread: _Unread, place: _Place, found: tuple[Message, Session], name: str) -> None:
    """Add a mention of this agent, and forget the oldest if there are too many. Those that it sees with
    any key are counted apart: hidden messages, which anybody can write, must not displace them."""
    kind = _is_seen_with_any_key(name, *found)
    alike = [one for one, other in unread.items() if _is_seen_with_any_key(name, *other) is kind]
    if place not in unread and len(alike) >= MAX_UNREAD:
        del unread[alike[0]]
    unread[place] = found


def _is_seen_with_any_key(name: str, message: Message, session: Session) -> bool:
    anyone = Caller(name, "", _READER, "")
    return policy.can_see_session(anyone, session) and policy.can_see_message(anyone, message)


def _summarize(messages: Sequence[Message]) -> UnreadMentions | None:
    by_session: dict[str, list[int]] = {}
    for message in messages:
        by_session.setdefault(message.session_id, []).append(message.seq)
    if not by_session:
        return None
    sessions = tuple(
        UnreadInSession(session_id, len(seqs), min(seqs), max(seqs))
        for session_id, seqs in by_session.items()
    )
    requiring_ack = sum(message.ack is Ack.REQUIRED for message in messages)
    return UnreadMentions(len(messages), sessions[-MAX_SHOWN:], requiring_ack)


def header_value(unread: UnreadMentions) -> bytes:
    """Return the mentions as JSON in ASCII, for a header."""
    return to_json(unread.meta(), ensure_ascii=True)
