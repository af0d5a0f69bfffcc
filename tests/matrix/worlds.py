"""What the callers of the matrix find: an invited session with things that only some may see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.matrix.callers import FOR_ADMINS, FOR_PLANNERS, IN_SESSION, OF_ALICE, SEEN, TO_DORA
from tests.matrix.lanes import Lane
from tests.matrix.table import Kind
from tests.surfaces.conftest import headers_of

NO_SESSION = "session_ffffffffffffffff"
INVITED = ["bob", "dora", "reader", "writer"]
CREATOR = headers_of("alice", agent_type="planner")
DORA = headers_of("dora", agent_type="tester")


@dataclass(frozen=True)
class World:
    """The session, and a message in it that all who are invited may acknowledge."""

    session_id: str
    message_id: int


async def make_world(rest: Lane) -> World:
    """A new session. Alice's private memory stays the same."""

    async def do(headers: dict[str, str], tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await rest.call(headers, tool, arguments)
        assert answer.code == "", answer.body
        return answer.body

    made = await do(
        CREATOR, "create_session", purpose=IN_SESSION, access="invited", participants=INVITED
    )
    there = {"session_id": made["session_id"]}
    first = await do(DORA, "add_message", **there, content=IN_SESSION, requires_ack=True)
    for content, visibility in ((FOR_PLANNERS, "agent_only"), (FOR_ADMINS, "admin_only")):
        await do(CREATOR, "add_message", **there, content=content, visibility=visibility)
    to_dora = {"visibility": "private", "recipients": ["dora"]}
    await do(CREATOR, "add_message", **there, content=TO_DORA, **to_dora)
    await do(DORA, "set_memory", **there, key="k", value=IN_SESSION, scope="shared")
    await do(CREATOR, "set_memory", **there, key="k", value=OF_ALICE)
    await do(CREATOR, "set_memory", key="own", value=OF_ALICE)
    await do(DORA, "acquire_lease", **there, name=IN_SESSION)
    await do(DORA, "add_task", **there, title=IN_SESSION)
    return World(made["session_id"], first["message_id"])


def count_messages(kind: Kind) -> int:
    """How many of the session's messages this kind of member sees at first: one for each word, and that
    there is a task."""
    return len(SEEN[kind] - {OF_ALICE}) + 1


class Cells:
    """Counts what was asked, and collects the answers that are not as the table says."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong: list[str] = []

    @contextmanager
    def about(self, *what: object) -> Iterator[None]:
        """One cell. An AssertionError in the block is collected."""
        self.count += 1
        try:
            yield
        except AssertionError as exc:
            self.wrong.append(f"{' | '.join(map(str, what))}: {str(exc).splitlines()[0]}")

    def require_all_right(self) -> None:
        shown = "\n".join(self.wrong[:40])
        assert not self.wrong, f"{len(self.wrong)} of {self.count} cells are wrong:\n{shown}"


def words_in(text: str) -> frozenset[str]:
    """The hidden words that a text contains."""
    return frozenset(
        word for word in (IN_SESSION, TO_DORA, FOR_PLANNERS, FOR_ADMINS, OF_ALICE) if word in text
    )
