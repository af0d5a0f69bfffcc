"""What a caller may not see changes nothing of what the caller is told.

Two servers live through the same script; in one of them others do besides what is hidden from vera:
messages to others, private memory, sessions without her. Every tool of the registry that only needs
the right to read then has to answer her the same on both, as have resources and event streams. The
numbers of messages (seq, id) are gapless for all, so her messages are compared by their place among
those that she sees. A new tool is included by itself; one with a required argument that VALUES does
not know fails until it is told what to call it with.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from mcp.shared.exceptions import MCPError

from shared_context_server.models import Permission
from shared_context_server.tools.catalog import TOOLS
from shared_context_server.tools.registry import Tool
from tests.postgres import DatabaseServer
from tests.settings import ADMIN_API_KEY, make_settings
from tests.surfaces.conftest import (
    RestSurface,
    headers_of,
    open_surface,
    serve,
)

AGENTS = {"alice": "planner", "bob": "planner", "carl": "coder", "dora": "planner", "vera": "coder"}
LAST = "this is the last message"
NO_SESSION = "session_ffffffffffffffff"
NO_MESSAGE = 999_999_999

# A digest names seqs, whose digits count.
VOLATILE = {"estimated_tokens", "search_time_ms", "time", "epoch_s", "earliest", "latest", "age_ms"}
NUMBERED = {"seq", "after_seq", "next_after_seq", "last_seq", "cursor"}
IDENTIFIED = {"id", "message_id", "parent_message_id"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_SEQ_IN_TEXT = re.compile(
    r"(?<=#)\d+|(?<=seq )\d+|(?<=seq is )\d+|(?<=see has )\d+|(?<=log ends before )\d+"
)


@dataclass
class World:
    """One server, and what the script has made on it, under names that both worlds share."""

    url: str
    is_hiding: bool
    actors: dict[str, RestSurface]
    sessions: dict[str, str] = field(default_factory=dict)
    messages: dict[str, int] = field(default_factory=dict)

    async def do(self, who: str, tool: str, /, **arguments: Any) -> Any:
        answer = await self.actors[who].call(tool, **arguments)
        assert not answer.is_error, answer.body
        return answer

    async def say(self, who: str, session: str, content: str, **arguments: Any) -> None:
        answer = await self.do(
            who, "add_message", session_id=self.sessions[session], content=content, **arguments
        )
        self.messages[content] = answer["message_id"]

    async def open(self, who: str, session: str, **arguments: Any) -> None:
        answer = await self.do(who, "create_session", purpose=session, **arguments)
        self.sessions[session] = answer["session_id"]


# What happens


Step = Callable[[World], Any]

SEEN: list[Step] = [
    lambda w: w.open("alice", "open"),
    lambda w: w.say("alice", "open", "report one", metadata={"type": "question"}),
    lambda w: w.say("bob", "open", "for you @vera", visibility="private", recipients=["vera"]),
    lambda w: w.say("carl", "open", "coders only", visibility="agent_only"),
    lambda w: w.say(
        "vera", "open", "answer", parent_message_id=w.messages["report one"], metadata={"n": 1}
    ),
    lambda w: w.open("bob", "invited", access="invited", participants=["vera"]),
    lambda w: w.say("bob", "invited", "report two"),
    lambda w: w.open("alice", "closed"),
    lambda w: w.do("alice", "close_session", session_id=w.sessions["closed"]),
    lambda w: w.do(
        "bob", "set_memory", key="plan", value=1, scope="shared", session_id=w.sessions["open"]
    ),
    lambda w: w.do("bob", "set_memory", key="everyone", value=2, scope="shared"),
    lambda w: w.do("vera", "set_memory", key="mine", value=3),
    lambda w: w.do("alice", "acquire_lease", name="deploy", session_id=w.sessions["open"]),
    lambda w: w.do("alice", "acquire_lease", name="everywhere"),
    lambda w: w.do("alice", "add_task", title="for all", session_id=w.sessions["open"]),
]

HIDDEN: list[Step] = [
    lambda w: w.say("dora", "open", "psst", visibility="private", recipients=["bob"]),
    lambda w: w.say("dora", "open", "report for planners", visibility="agent_only"),
    lambda w: w.say("dora", "open", "for admins @vera", visibility="admin_only"),
    lambda w: w.say(
        "bob",
        "open",
        "a private answer",
        visibility="private",
        parent_message_id=w.messages["report one"],
        metadata={"type": "decision"},
    ),
    lambda w: w.do("bob", "mark_read", session_id=w.sessions["open"], seq=1),
    lambda w: w.do("dora", "set_memory", key="plan", value=9),
    lambda w: w.do("dora", "set_memory", key="p", value=9, session_id=w.sessions["open"]),
    lambda w: w.do("dora", "delete_memory", key="p", session_id=w.sessions["open"]),
    lambda w: w.say("dora", "secret", "a secret report"),
    lambda w: w.do("dora", "acquire_lease", name="deploy", session_id=w.sessions["secret"]),
    lambda w: w.do(
        "dora", "set_memory", key="plan", value=9, scope="shared", session_id=w.sessions["secret"]
    ),
    lambda w: w.do("dora", "add_task", title="secret", session_id=w.sessions["secret"]),
    lambda w: w.do("dora", "claim_task", session_id=w.sessions["secret"]),
    lambda w: w.do("dora", "close_session", session_id=w.sessions["secret"]),
]


async def live(world: World, seed: int) -> None:
    """The script; where the world is hiding something, the hidden steps at places that `seed` chooses,
    in their order, once the session they need is open."""
    chance = random.Random(seed)
    places = sorted(chance.randrange(2, len(SEEN) + 1) for _ in HIDDEN)
    if world.is_hiding:
        await world.open("dora", "secret", access="invited")
    else:
        world.sessions["secret"] = NO_SESSION
    for place, step in enumerate([*SEEN, None]):
        if world.is_hiding:
            for hidden in (h for h, at in zip(HIDDEN, places, strict=True) if at == place):
                await hidden(world)
        if step is not None:
            await step(world)
    await world.say("alice", "open", LAST)
    world.messages.setdefault("psst", NO_MESSAGE)
    # Who is about is no secret: the hidden are in both worlds, and were heard of in one order.
    for who in world.actors:
        await world.do(who, "list_sessions")


# What vera asks


@dataclass
class Sight:
    """What numbers stand for to vera, so that answers of the two worlds can be compared."""

    world: World
    seqs: dict[int, str] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    @classmethod
    async def of(cls, world: World) -> Sight:
        sight = cls(world)
        for name in ("open", "invited", "closed"):
            page = await world.do("vera", "get_messages", session_id=world.sessions[name])
            seqs = [message["seq"] for message in page["messages"]] or [0]
            sight.first[name], sight.newest[name] = seqs[0], seqs[-1]
            for message in page["messages"]:
                sight.ids[message["id"]] = message["content"]
                if name == "open":
                    sight.seqs[message["seq"]] = message["content"]
        return sight

    def normalize(self, value: Any, name: str = "") -> Any:
        if name == "cursors" and value:
            return {
                self.normalize_text(session_id): self.seqs.get(seq, seq)
                for session_id, seq in value.items()
            }
        if isinstance(value, dict):
            return {
                key: self.normalize(inner, key)
                for key, inner in value.items()
                if key not in VOLATILE
            }
        if isinstance(value, list):
            return [self.normalize(inner, name) for inner in value]
        if name == "next_cursor":
            return value is not None
        if name in NUMBERED:
            return self.seqs.get(value, value)
        if name in IDENTIFIED:
            return self.ids.get(value, "none" if value == self.world.messages["psst"] else value)
        return self.normalize_text(value) if isinstance(value, str) else value

    def normalize_text(self, text: str) -> str:
        for name, session_id in self.world.sessions.items():
            text = text.replace(session_id, f"<{name}>")
        text = text.replace(f"no message {self.world.messages['psst']}.", "no message <psst>.")
        return _SEQ_IN_TEXT.sub(lambda found: f"<{self.seqs.get(int(found[0]), found[0])}>", text)


def is_reading(tool: Tool[Any, Any]) -> bool:
    """Needs the right to read only, and leaves credentials alone."""
    is_harmless = tool.hints.idempotent and not tool.hints.destructive
    return tool.permission is Permission.READ and is_harmless


def make_values(sight: Sight) -> dict[str, list[Any]]:
    """What to call tools with, by the name of the argument."""
    world = sight.world
    return {
        "session_id": [*world.sessions.values()],
        "query": ["report", "secret psst"],
        "key": ["plan", "mine", "p"],
        "seq": [sight.first["open"], sight.newest["open"], 99],
        "scope": ["private", "shared", "all", "agent_only", "admin_only"],
        "sender": ["alice", "dora", "nobody"],
        "visibility": ["public", "private", "agent_only", "admin_only"],
        "parent_message_id": [world.messages["report one"], world.messages["psst"]],
        "after_seq": [0, sight.first["open"], sight.newest["open"]],
        "before_seq": [sight.newest["open"]],
        "offset": [1],
        "limit": [1, 100],
        "status": ["all", "closed"],
        "created_by": ["alice", "dora"],
        "prefix": ["p"],
        "fuzzy_threshold": [0, 90],
        "search_metadata": [False],
        "mentions_me": [True],
        "max_tokens": [50, 5000],
    }


def make_calls(
    tool: Tool[Any, Any], values: dict[str, list[Any]], *, is_thorough: bool
) -> Iterator[dict[str, Any]]:
    """Every session with every required value; if thorough, there each optional one by itself."""
    fields = tool.arguments.model_fields
    always = {"timeout_seconds": 0} if "timeout_seconds" in fields else {}
    required = [name for name, found in fields.items() if found.is_required()]
    unknown = set(required) - set(values)
    assert not unknown, f"Teach make_values what to give {tool.name} as {', '.join(unknown)}."
    places: list[dict[str, Any]] = [{}] if "session_id" not in required else []
    if "session_id" in fields:
        places += [{"session_id": session_id} for session_id in values["session_id"]]
    others = [name for name in required if name != "session_id"]
    optional = sorted((fields.keys() - {*required, "session_id"}) & values.keys())
    for place in places:
        for base in combine(place | always, others, values):
            yield base
            for name in optional if is_thorough else ():
                yield from (base | {name: value} for value in values[name])


def combine(
    base: dict[str, Any], names: list[str], values: dict[str, list[Any]]
) -> Iterator[dict[str, Any]]:
    if not names:
        yield base
        return
    for value in values[names[0]]:
        yield from combine(base | {names[0]: value}, names[1:], values)


Calls = list[tuple[str, dict[str, Any]]]
CallMany = Callable[[Calls], Awaitable[list[Any]]]


async def ask_tools(
    call_many: CallMany, sight: Sight, *, is_thorough: bool
) -> list[tuple[str, Any]]:
    """What every reading tool answers, page after page where there are pages."""
    values = make_values(sight)
    calls: Calls = [
        (tool.name, arguments)
        for tool in TOOLS
        if is_reading(tool)
        for arguments in make_calls(tool, values, is_thorough=is_thorough)
    ]
    told: list[tuple[str, Any]] = []
    while calls:
        answers = await call_many(calls)
        told += [
            (f"{tool} {arguments}", body)
            for (tool, arguments), body in zip(calls, answers, strict=True)
        ]
        calls = [
            (tool, arguments | {"cursor": body["next_cursor"]})
            for (tool, arguments), body in zip(calls, answers, strict=True)
            if body.get("next_cursor")
        ]
    return told


def call_by_batches(url: str) -> CallMany:
    async def call_many(calls: Calls) -> list[Any]:
        bodies: list[Any] = []
        headers = headers_of("vera", agent_type="coder")
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            for start in range(0, len(calls), 50):
                batch = [
                    {"tool": tool, "arguments": arguments}
                    for tool, arguments in calls[start : start + 50]
                ]
                answered = (await client.post("/mcp/batch", json={"calls": batch})).json()
                bodies += [answer["result"] for answer in answered["results"]]
        return bodies

    return call_many


def call_by_mcp(url: str) -> CallMany:
    async def call_many(calls: Calls) -> list[Any]:
        headers = headers_of("vera", agent_type="coder")
        async with open_surface("mcp-2026-07-28", url, headers) as vera:
            return [(await vera.call(tool, **arguments)).body for tool, arguments in calls]

    return call_many


def make_attempts(world: World) -> Calls:
    """Writes that must not tell whether what they name exists."""
    secret, there = world.sessions["secret"], world.sessions["open"]
    return [
        ("add_message", {"session_id": secret, "content": "x"}),
        (
            "add_message",
            {"session_id": there, "content": "x", "parent_message_id": world.messages["psst"]},
        ),
        ("set_memory", {"session_id": secret, "key": "plan", "value": 1, "scope": "shared"}),
        ("delete_memory", {"session_id": secret, "key": "plan", "scope": "shared"}),
        ("delete_memory", {"session_id": there, "key": "p"}),
        ("acquire_lease", {"session_id": secret, "name": "deploy"}),
        ("release_lease", {"session_id": secret, "name": "deploy", "fencing_token": 1}),
        ("add_task", {"session_id": secret, "title": "x", "depends_on": [1]}),
        ("claim_task", {"session_id": secret, "task_id": 1}),
        ("finish_task", {"session_id": secret, "task_id": 1, "fencing_token": 1}),
        ("close_session", {"session_id": secret}),
        ("delete_session", {"session_id": secret}),
    ]


async def read_resources(url: str, world: World) -> AsyncIterator[tuple[str, Any]]:
    transport = StreamableHttpTransport(
        f"{url}/mcp", headers=headers_of("vera", agent_type="coder")
    )
    async with Client(transport, mode="2026-07-28") as client:
        yield "resources", [str(found.uri) for found in await client.list_resources()]
        templates = [found.uri_template for found in await client.list_resource_templates()]
        for template in templates:
            for session_id in world.sessions.values():
                uri = template.replace("{session_id}", session_id).replace("{agent_id}", "dora")
                uri = uri.replace("{key}", "plan")
                try:
                    found = await client.read_resource(uri)
                except MCPError as exc:
                    yield uri, {"code": exc.error.code, "error": exc.error.message}
                else:
                    yield uri, json.loads(found[0].text)  # type: ignore[union-attr]


async def follow_events(url: str, **query: str) -> AsyncIterator[tuple[str, Any]]:
    """A stream from its beginning to the last message."""
    headers = headers_of("vera", agent_type="coder") | {"Last-Event-ID": "0"}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
        client.stream("GET", "/events", params=query) as response,
    ):
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                message = json.loads(line.removeprefix("data:"))
                yield "event", message
                if message.get("content") == LAST:
                    return


async def record(world: World) -> list[tuple[str, str]]:
    """All that vera is told, in a form in which it can be compared."""
    sight = await Sight.of(world)
    told: list[tuple[str, Any]] = []
    attempts = make_attempts(world)
    for call_many, is_thorough in (
        (call_by_batches(world.url), True),
        (call_by_mcp(world.url), False),
    ):
        told += await ask_tools(call_many, sight, is_thorough=is_thorough)
        told += zip((tool for tool, _ in attempts), await call_many(attempts), strict=True)
    told += [item async for item in read_resources(world.url, world)]
    for query in ({"session_id": world.sessions["open"]}, {}):
        told += [item async for item in follow_events(world.url, **query)]
    times = sorted({found for _, body in told for found in _TIME.findall(json.dumps(body))})
    ranks = {found: f"time {rank}" for rank, found in enumerate(times)}

    def rank_times(text: str) -> str:
        return _TIME.sub(lambda found: ranks[found[0]], text)

    return [
        (sight.normalize_text(what), rank_times(json.dumps(sight.normalize(body), indent=1)))
        for what, body in told
    ]


@pytest.mark.timeout(300)  # some hundred calls on two servers
@pytest.mark.no_cover  # each of its calls is what other tests are about
@pytest.mark.parametrize("store, seed", [("sqlite", 1), ("postgresql", 3)])
async def test_what_is_hidden_from_a_caller_changes_nothing_the_caller_is_told(
    store: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    told: list[list[tuple[str, str]]] = []
    with ExitStack() as databases:
        for is_hiding in (False, True):
            database: dict[str, Any] = {}
            if store == "postgresql":
                server: DatabaseServer = request.getfixturevalue("postgres")
                database = databases.enter_context(server.new_database())
            data_dir = tmp_path / ("hiding" if is_hiding else "plain")
            async with AsyncExitStack() as stack:
                _, url = await stack.enter_async_context(serve(make_settings(data_dir, **database)))
                actors = {
                    name: await stack.enter_async_context(
                        RestSurface(url, headers_of(name, agent_type=agent_type))
                    )
                    for name, agent_type in AGENTS.items()
                }
                admin = RestSurface(url, headers_of("root", api_key=ADMIN_API_KEY))
                world = World(url, is_hiding, actors)
                await live(world, seed)
                async with admin:
                    listed = await admin.call("list_sessions", status="all")
                assert len(listed["sessions"]) == 3 + is_hiding
                told.append(await record(world))
    plain, hiding = told
    assert len(plain) == len(hiding) > 400
    for (what, without), (_, beside) in zip(plain, hiding, strict=True):
        assert beside == without, what
