"""Every tool, in every way to call it, as every kind of caller, compared with the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared_context_server.server import open_server
from shared_context_server.tools.catalog import TOOLS
from tests.matrix.callers import SECRET, SEEN, Somebody, make_callers
from tests.matrix.lanes import LANES, Answer, Lane
from tests.matrix.table import ANSWERS, MISSING, ROWS, VALID, Does, Kind, ToolCall, make_calls
from tests.matrix.worlds import NO_SESSION, Cells, World, count_messages, make_world, words_in
from tests.settings import make_settings


def test_every_tool_has_a_row_that_fits_its_registration() -> None:
    assert [tool.name for tool in TOOLS if tool.name not in ROWS] == []
    assert ROWS.keys() == {tool.name for tool in TOOLS}
    for tool in TOOLS:
        row = ROWS[tool.name]
        names_session = "session_id" in tool.arguments.model_fields
        assert names_session == (row.does not in (Does.READS, Does.WRITES, Does.LETS_IN)), tool.name


@pytest.mark.no_cover  # each of its calls is what other tests are about
@pytest.mark.parametrize("lane", LANES)
async def test_every_caller_gets_what_the_table_says(lane: str, tmp_path: Path) -> None:
    cells = Cells()
    settings = make_settings(
        tmp_path, jwt_secret_key=SECRET, rate_limit="off", failed_auth_limit="off"
    )
    async with open_server(settings) as server:
        rest = Lane("rest", server.app)
        untouched = await make_world(rest)
        async for somebody in make_callers(server):
            world = await make_world(rest) if somebody.kind in VALID else untouched
            await call_all(cells, Lane(lane, server.app), world, somebody)
    cells.require_all_right()
    assert cells.count > 1000


async def call_all(cells: Cells, lane: Lane, world: World, somebody: Somebody) -> None:
    """Call every tool once as this caller."""
    seen: set[str] = set()
    for call in make_calls(world.session_id, world.message_id):
        answer = await lane.call(somebody.headers, call.tool, somebody.with_token(call.arguments))
        with cells.about(lane.name, somebody.name, call.tool, call.arguments):
            check_code(lane, somebody, call, answer)
            found = words_in(answer.text)
            seen |= found
            assert found <= SEEN[somebody.kind], f"shows {found - SEEN[somebody.kind]}"
            if call.tool == "get_session" and answer.code == "":
                assert answer.body["message_count"] == count_messages(somebody.kind)
            if call.tool == "list_sessions" and answer.code == "":
                check_counts(somebody.kind, world.session_id, answer)
        if answer.code == MISSING:
            await compare_with_missing(cells, lane, somebody, call, world.session_id, answer)
    with cells.about(lane.name, somebody.name, "all that it may see"):
        assert seen == SEEN[somebody.kind]


def check_code(lane: Lane, somebody: Somebody, call: ToolCall, answer: Answer) -> None:
    expected = ANSWERS[call.does][somebody.kind]
    if call.does is Does.LETS_IN:
        # Its own key is a right one. Only MCP refuses it for what else the request presents.
        is_http = lane.name in ("rest", "batch")
        expected = "" if is_http or not somebody.is_refused_by_headers else expected
    if expected == "":
        assert answer.code in {"", *call.own}, f"{answer.code} instead of success"
    else:
        assert answer.code == expected, f"{answer.code or 'success'} instead of {expected}"


def check_counts(kind: Kind, session_id: str, answer: Answer) -> None:
    (listed,) = [
        session for session in answer.body["sessions"] if session["session_id"] == session_id
    ] or [None]
    is_there = kind not in (Kind.OUTSIDER, Kind.WRITER)
    assert (listed is not None) == is_there, "the session is listed" if listed else "it is not"
    if listed is not None:
        assert listed["message_count"] == count_messages(kind)


async def compare_with_missing(
    cells: Cells, lane: Lane, somebody: Somebody, call: ToolCall, session_id: str, answer: Answer
) -> None:
    """That the answer is the one for a session that does not exist."""
    arguments = somebody.with_token(call.arguments | {"session_id": NO_SESSION})
    missing = await lane.call(somebody.headers, call.tool, arguments)
    with cells.about(lane.name, somebody.name, call.tool, "as if it did not exist"):
        assert answer.text.replace(session_id, NO_SESSION) == missing.text
