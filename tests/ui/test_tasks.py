"""Tasks: the sessions that have some, the board, the list, and one task."""

from __future__ import annotations

import re

import httpx

from shared_context_server.server import Server
from shared_context_server.ui.tasks import ON_BOARD
from tests.rest.conftest import call, create_session
from tests.ui.conftest import follow, text_of

HOSTILE = "<b>bold</b>\"'><script>alert(1)</script>"


def column_of(page: httpx.Response, state: str) -> list[str]:
    """The titles of the tasks in a column, from top to bottom."""
    column = page.text.split(f'class="column column-{state}"')[1].split("</section>")[0]
    return re.findall(r'class="task-title"[^>]*>(.*?)</a>', column)


async def finish(client: httpx.AsyncClient, session_id: str, task_id: int, outcome: str) -> None:
    claimed = await call(
        client, "claim_task", session_id=session_id, task_id=task_id, ttl_seconds=60
    )
    await call(
        client,
        "finish_task",
        session_id=session_id,
        task_id=task_id,
        fencing_token=claimed["task"]["fencing_token"],
        outcome=outcome,
        result={"note": HOSTILE},
    )


async def test_tasks_stand_in_the_column_of_their_state(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    empty = await person.get("/ui/tasks")
    session_id = await create_session(agent)
    for title, depends_on in [(HOSTILE, []), ("two", []), ("three", [2]), ("four", [])]:
        await call(agent, "add_task", session_id=session_id, title=title, depends_on=depends_on)
    await call(agent, "claim_task", session_id=session_id, task_id=2, ttl_seconds=60)
    await finish(agent, session_id, 4, "failed")
    board = await person.get(f"/ui/tasks?session_id={session_id}")
    overview = await person.get("/ui/tasks")

    assert "No tasks in these sessions" in text_of(empty)
    assert f'href="/ui/tasks?session_id={session_id}"' in overview.text
    assert [column_of(board, state) for state in ("blocked", "claimed", "failed", "done")] == [
        ["three"],
        ["two"],
        ["four"],
        [],
    ]
    assert len(column_of(board, "ready")) == 1
    assert "<script>alert" not in board.text
    assert "waits for #2" in text_of(board)


async def test_a_task_shows_what_it_depends_on_who_holds_it_and_its_result(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    await call(agent, "add_task", session_id=session_id, title="first", body=HOSTILE)
    await call(agent, "add_task", session_id=session_id, title="second", depends_on=[1])
    await call(agent, "claim_task", session_id=session_id, task_id=1, ttl_seconds=60)
    held = await person.get(f"/ui/tasks/{session_id}/1")
    waiting = await person.get(f"/ui/tasks/{session_id}/2")
    await finish(agent, session_id, 1, "done")
    done = await person.get(f"/ui/tasks/{session_id}/1")

    assert "Held by worker-7" in text_of(held)
    assert f'href="/ui/tasks/{session_id}/2"' in held.text
    assert "Depends on claimed #1 first worker-7" in text_of(waiting)
    assert "Finished by worker-7" in text_of(done)
    for page in (held, done):
        assert "<script>alert" not in page.text
        assert "alert(1)" in page.text
    for number in ("3", "0", "x", "9" * 30, "²"):
        assert (await person.get(f"/ui/tasks/{session_id}/{number}")).status_code == 404


async def test_of_many_finished_tasks_the_newest_are_on_the_board(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    count = 5 * ON_BOARD
    for number in range(1, count + 1):
        await call(agent, "add_task", session_id=session_id, title=f"t{number}")
    for number in range(1, ON_BOARD + 3):
        await finish(agent, session_id, number, "done")
    board = await person.get(f"/ui/tasks?session_id={session_id}")
    listed = await person.get(f"/ui/tasks?session_id={session_id}&state=done")

    assert column_of(board, "done") == [f"t{number}" for number in range(ON_BOARD + 2, 2, -1)]
    assert f"All {ON_BOARD + 2}" in text_of(board)
    assert len(column_of(board, "ready")) == ON_BOARD
    assert listed.text.count('class="lead"') == ON_BOARD + 2


async def test_the_board_is_told_of_a_new_task(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    async with follow(server, person, "/ui/events/tasks") as stream:
        await call(agent, "add_task", session_id=session_id, title="new")
        assert (await stream.next()).event == "refresh"
