"""Resources, prompts, completions, subscriptions, event streams, metrics and the dashboard, as every kind
of caller, and embedded servers for those that have an identity."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.embed import McpServerAdapter, create_sdk_server
from shared_context_server.server import open_server
from shared_context_server.ui.routes import PAGES as ROUTES
from tests.embed.conftest import EmbeddedSurface, initialize
from tests.matrix.callers import SECRET, SEEN, Somebody, make_callers
from tests.matrix.lanes import LEGACY, Answer, Lane, ask
from tests.matrix.table import (
    ANSWERS,
    CONFIRMATIONS,
    MISSING,
    OWN_RESOURCES,
    PAGES,
    PROMPTS,
    RESOURCES,
    Does,
    Kind,
    make_calls,
)
from tests.matrix.worlds import CREATOR, NO_SESSION, Cells, World, make_world, words_in
from tests.settings import make_settings
from tests.tool_calls import SESSION
from tests.transport.generated import BOTH

PUBLIC_RESOURCES = {"clock://now", "sensors://all"}
PLAIN = {"accept": "*/*"}


@pytest.mark.no_cover
@pytest.mark.parametrize("era", ["mcp-2026-07-28", "mcp-2025-06-18"])
async def test_every_caller_reads_what_the_table_says_over_mcp(era: str, tmp_path: Path) -> None:
    cells = Cells()
    settings = make_settings(
        tmp_path, jwt_secret_key=SECRET, rate_limit="off", failed_auth_limit="off"
    )
    async with open_server(settings) as server:
        lane = Lane(era, server.app)
        world = await make_world(Lane("rest", server.app))
        listed = await lane.request(CREATOR, "resources/templates/list")
        found = await lane.request(CREATOR, "resources/list")
        prompts = await lane.request(CREATOR, "prompts/list")
        templates = {one["uriTemplate"] for one in listed["result"]["resourceTemplates"]}
        assert templates == RESOURCES.keys() | OWN_RESOURCES
        assert {one["uri"] for one in found["result"]["resources"]} >= PUBLIC_RESOURCES
        assert {one["name"] for one in prompts["result"]["prompts"]} == PROMPTS.keys()
        async for somebody in make_callers(server):
            if somebody.auth_token is None:  # an argument of tools only
                await read_resources(cells, lane, somebody, world)
                await get_prompts(cells, lane, somebody, world)
                await complete(cells, lane, somebody, world)
                if era == "mcp-2026-07-28":
                    await listen(cells, lane, somebody, world)
    cells.require_all_right()
    assert cells.count > 300


@pytest.mark.no_cover
async def test_every_caller_subscribes_to_what_the_table_says_in_sessions_of_earlier_protocols(
    tmp_path: Path,
) -> None:
    cells = Cells()
    settings = make_settings(
        tmp_path,
        jwt_secret_key=SECRET,
        rate_limit="off",
        failed_auth_limit="off",
        mcp_sessions="stateful",
    )
    async with open_server(settings) as server:
        world = await make_world(Lane("rest", server.app))
        async for somebody in make_callers(server):
            if somebody.auth_token is None:
                await subscribe(cells, server.app, somebody, world)
    cells.require_all_right()
    assert cells.count > 60


def test_every_page_of_the_dashboard_has_a_row() -> None:
    def shape(path: str) -> str:
        return re.sub(r"\{\w+\}|(?<=/)1$", "{}", path.partition("?")[0])

    pages = {shape(page.path) for page in ROUTES if page.get is not None}
    assert pages == {shape(path) for path in PAGES} | CONFIRMATIONS


@pytest.mark.no_cover
async def test_every_caller_gets_what_the_table_says_over_plain_http(tmp_path: Path) -> None:
    cells = Cells()
    settings = make_settings(
        tmp_path, jwt_secret_key=SECRET, rate_limit="off", failed_auth_limit="off"
    )
    async with open_server(settings) as server:
        world = await make_world(Lane("rest", server.app))
        pages = {
            f"/events?session_id={world.session_id}": Does.READS_SESSION,
            "/events": Does.READS,
            "/fleet": Does.READS,
            "/metrics": Does.READS,
        }
        for template, does in PAGES.items():
            path = template.replace("{session_id}", world.session_id)
            pages["/ui" + path.replace("{message_id}", str(world.message_id))] = does
        async for somebody in make_callers(server):
            if somebody.auth_token is not None:
                continue
            for path, does in pages.items():
                await get_page(cells, server.app, somebody, path, does, world)
    cells.require_all_right()
    assert cells.count > 300


@pytest.mark.no_cover
async def test_embedded_agents_get_what_the_table_says(tmp_path: Path) -> None:
    cells = Cells()
    settings = make_settings(tmp_path, jwt_secret_key=SECRET)
    agents = {
        Kind.OUTSIDER: ("mallory", "planner", ["read", "write"]),
        Kind.READER: ("reader", "coder", ["read"]),
        Kind.WRITER: ("writer", "coder", ["write"]),
        Kind.MEMBER: ("bob", "coder", ["read", "write"]),
        Kind.CREATOR: ("alice", "planner", ["read", "write"]),
        Kind.ADMIN: ("root", "human", ["read", "write", "admin"]),
    }
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(settings))
        for kind, (agent_id, agent_type, permissions) in agents.items():
            world = await make_world(Lane("rest", server.app))
            entry = create_sdk_server(
                agent_id=agent_id,
                agent_type=agent_type,
                permissions=permissions,
                data_dir=tmp_path,
                database_url=settings.database_url,
            )
            adapter = McpServerAdapter(entry["instance"])
            await adapter.connect()
            stack.push_async_callback(adapter.close)
            surface = EmbeddedSurface(adapter)
            for call in make_calls(world.session_id, world.message_id):
                if call.does is Does.LETS_IN:
                    continue  # its key is this process's own; tests/embed has what it gives
                told = Answer((await surface.call(call.tool, **call.arguments)).body)
                with cells.about("embed", kind, call.tool):
                    expected = ANSWERS[call.does][kind]
                    is_right = told.code == expected or (not expected and told.code in call.own)
                    assert is_right, f"{told.code or 'success'} instead of {expected or 'success'}"
                    assert words_in(told.text) <= SEEN[kind]
    cells.require_all_right()
    assert cells.count > 200


async def read_resources(cells: Cells, lane: Lane, somebody: Somebody, world: World) -> None:
    may_read = ANSWERS[Does.READS][somebody.kind] == ""
    may_see = ANSWERS[Does.READS_SESSION][somebody.kind] == ""
    for template in sorted(RESOURCES.keys() | OWN_RESOURCES | PUBLIC_RESOURCES):
        uri = template.replace("{agent_id}", "alice").replace("{key}", "own")
        if template in RESOURCES:
            uri = template.replace("{session_id}", world.session_id).replace("{key}", "k")
        told = await lane.request(somebody.headers, "resources/read", uri=uri)
        with cells.about(lane.name, somebody.name, template):
            text = json.dumps(told)
            assert words_in(text) <= SEEN[somebody.kind], "shows what is hidden"
            if template in RESOURCES:
                assert ("result" in told) == may_see, text
            elif template in OWN_RESOURCES:
                assert ("result" in told) == (somebody.kind is Kind.CREATOR), text
            elif not may_read:
                assert "error" in told, text
        if somebody.kind is Kind.OUTSIDER and template in RESOURCES:
            missing_uri = uri.replace(world.session_id, NO_SESSION)
            missing = await lane.request(somebody.headers, "resources/read", uri=missing_uri)
            with cells.about(lane.name, somebody.name, template, "as if it did not exist"):
                assert json.dumps(missing) == text.replace(world.session_id, NO_SESSION)


async def get_prompts(cells: Cells, lane: Lane, somebody: Somebody, world: World) -> None:
    for name, given in PROMPTS.items():
        arguments = {key: value.replace(SESSION, world.session_id) for key, value in given.items()}
        told = await lane.request(somebody.headers, "prompts/get", name=name, arguments=arguments)
        with cells.about(lane.name, somebody.name, "prompt", name):
            assert ("error" in told) == bool(somebody.is_refused_by_headers), told
            assert not words_in(json.dumps(told)), "a prompt shows what is stored"


async def complete(cells: Cells, lane: Lane, somebody: Somebody, world: World) -> None:
    """What could follow names only what the caller may see."""
    ref = {"type": "ref/resource", "uri": "session://{session_id}/messages"}
    argument = {"name": "session_id", "value": ""}
    told = await lane.request(somebody.headers, "completion/complete", ref=ref, argument=argument)
    with cells.about(lane.name, somebody.name, "completion"):
        is_named = world.session_id in json.dumps(told)
        assert is_named == (ANSWERS[Does.READS_SESSION][somebody.kind] == ""), told


async def listen(cells: Cells, lane: Lane, somebody: Somebody, world: World) -> None:
    """A subscription is honoured only for what the caller may read."""
    uri = f"session://{world.session_id}"
    told = await lane.request(
        somebody.headers,
        "subscriptions/listen",
        leaves_at_first=True,
        notifications={"resourceSubscriptions": [uri]},
    )
    with cells.about(lane.name, somebody.name, "subscription"):
        is_honoured = uri in json.dumps(told.get("params", {}))
        assert is_honoured == (ANSWERS[Does.READS_SESSION][somebody.kind] == ""), told


async def subscribe(cells: Cells, app: Any, somebody: Somebody, world: World) -> None:
    """Subscribe in a session of one's own to a session that exists and to one that does not."""
    lane = Lane("mcp-2025-06-18", app)
    headers = somebody.headers | {"accept": BOTH}
    began = await ask(app, "POST", "/mcp", headers, initialize())
    with cells.about("initialize", somebody.name):
        assert (began.status == 200) != bool(somebody.is_refused_by_headers), began.text
    if began.status != 200:
        return
    headers |= {"mcp-session-id": began.headers["mcp-session-id"]}
    uri = f"session://{world.session_id}"
    may_see = ANSWERS[Does.READS_SESSION][somebody.kind] == ""
    for method in ("resources/subscribe", "resources/unsubscribe"):
        told = await lane.request(headers, method, uri=uri)
        missing = await lane.request(headers, method, uri=f"session://{NO_SESSION}")
        with cells.about(method, somebody.name):
            if method == "resources/subscribe":
                assert ("result" in told) == may_see, told
            assert not words_in(json.dumps(told))
        if not may_see:
            with cells.about(method, somebody.name, "as if it did not exist"):
                text = json.dumps(told).replace(world.session_id, NO_SESSION)
                assert text == json.dumps(missing)
    await ask(app, "DELETE", "/mcp", headers | {"mcp-protocol-version": LEGACY})


async def get_page(
    cells: Cells, app: Any, somebody: Somebody, path: str, does: Does, world: World
) -> None:
    headers = somebody.headers | PLAIN
    is_stream = "/events" in path
    if path.startswith("/events"):
        headers = headers | {"last-event-id": "0"}
    answer = await ask(
        app,
        "GET",
        path,
        headers,
        leaves_at_first=is_stream,
        leaves_at_start=is_stream and "?" not in path,  # others may have nothing new to say
    )
    expected = ANSWERS[does][somebody.kind]
    with cells.about(path, somebody.name):
        found = words_in(answer.text.replace("query=quartz", ""))
        assert found <= SEEN[somebody.kind], f"shows {found - SEEN[somebody.kind]}"
        assert (answer.status == 200) == (expected == ""), f"{answer.status}, not {expected or 200}"
        if somebody.kind is Kind.OUTSIDER and expected != MISSING:
            assert world.session_id not in answer.text.replace(path, ""), "names the session"
    if expected == MISSING:
        missing = path.replace(world.session_id, NO_SESSION)
        other = await ask(app, "GET", missing, headers)
        with cells.about(path, somebody.name, "as if it did not exist"):
            assert answer.status == other.status
            assert answer.text.replace(world.session_id, NO_SESSION) == other.text
