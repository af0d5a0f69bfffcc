"""The page of a session: what is shown to whom, filters, the live log, and what a person does there."""

from __future__ import annotations

import html
import io
import json
import re
from datetime import timedelta
from typing import Any

import httpx
import pytest

from shared_context_server.models import InstanceSeen, Waiting
from shared_context_server.server import Server
from shared_context_server.services import session_log
from shared_context_server.services.exported_logs import check_log
from shared_context_server.steady_time import utc_now
from shared_context_server.ui.session import PAGE_SIZE
from shared_context_server.ui.timeline import choose_span
from tests.rest.conftest import call, client_of, create_session
from tests.settings import API_KEY
from tests.storage.builders import make_audit
from tests.ui.conftest import follow, read_csrf, submit, text_of

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> javascript:alert(3) {{7*7}} "
    "\u202eevil\u2066 </title></textarea><svg onload=alert(4)>"
)


async def add(client: httpx.AsyncClient, session_id: str, content: str, **more: Any) -> int:
    added = await call(client, "add_message", session_id=session_id, content=content, **more)
    seq: int = added["seq"]
    return seq


def seqs_of(page: httpx.Response) -> list[int]:
    """The seqs of the messages on the page, from top to bottom."""
    return [int(seq) for seq in re.findall(r'<article [^>]* data-seq="(\d+)"', page.text)]


async def test_the_log_is_in_the_order_of_seq_and_older_pages_follow_by_a_cursor(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    for number in range(PAGE_SIZE + 5):
        await add(agent, session_id, f"message {number}")

    newest = await person.get(f"/ui/sessions/{session_id}")
    older = await person.get(f"/ui/sessions/{session_id}?before=6")
    link = re.search(r'href="([^"]*before=\d+)"', newest.text)

    assert seqs_of(newest) == list(range(6, PAGE_SIZE + 6))
    assert link is not None
    assert link[1].endswith("?before=6")
    assert seqs_of(older) == [1, 2, 3, 4, 5]
    assert "data-log-live" in newest.text
    assert "data-log-live" not in older.text


async def test_what_others_have_in_private_is_neither_shown_nor_counted(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    await add(agent, session_id, "open to all")
    await add(agent, session_id, "between us", visibility="private", recipients=["reviewer"])
    await add(agent, session_id, "hidden-word for my type", visibility="agent_only")
    await call(agent, "set_memory", key="secret-key", value="secret-value", session_id=session_id)
    hidden = ("between us", "hidden-word", "secret-key", "secret-value")

    async with follow(server, person, f"/ui/events/sessions/{session_id}?after=0") as stream:
        first = await stream.next()
        await add(agent, session_id, "once more, between us", visibility="private")
        await add(agent, session_id, "the end")
        second = await stream.next()
    paths = (
        f"/ui/sessions/{session_id}",
        f"/ui/sessions/{session_id}?text=between",
        f"/ui/sessions/{session_id}?visibility=private",
        f"/ui/sessions/{session_id}/timeline",
        f"/ui/sessions/{session_id}/export.md",
        f"/ui/sessions/{session_id}/export.jsonl",
        "/ui/sessions",
        "/ui/search?q=between+us+hidden-word+secret",
        "/ui/search?q=secret-key&within=all",
    )
    pages = {path: await person.get(path) for path in paths}
    by_id = await person.get(f"/ui/sessions/{session_id}/messages/2")
    as_admin = await overseer.get(f"/ui/sessions/{session_id}")
    admins_search = await overseer.get("/ui/search?q=secret-key&within=all")

    assert ("open to all" in first.data, "the end" in second.data) == (True, True)
    for path, page in pages.items():
        shown = page.text.replace(path.partition("?")[2], "")
        for text in hidden:
            assert f"{text}<" not in shown.replace('value="', ""), (path, text)
            assert text not in text_of(page) or "q=" in path, (path, text)
    assert "2 messages" in text_of(pages[f"/ui/sessions/{session_id}"])
    assert "Nothing found" in text_of(pages["/ui/search?q=secret-key&within=all"])
    assert by_id.status_code == 404
    assert "between us" in text_of(as_admin)
    assert "Nothing found" in text_of(admins_search)


async def test_a_session_that_may_not_be_seen_looks_like_one_that_does_not_exist(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    invited = await create_session(agent, access="invited")
    await add(agent, invited, "for members")
    missing = "session_0123456789abcdef"

    for path in (
        "",
        "/timeline",
        "/messages/1",
        "/close",
        "/delete",
        "/export.md",
        "/export.jsonl",
    ):
        answers = [await person.get(f"/ui/sessions/{id_}{path}") for id_ in (invited, missing)]
        assert [answer.status_code for answer in answers] == [404, 404]
        of_invited, of_missing = (text_of(answer) for answer in answers)
        assert of_invited.replace(invited, "") == of_missing.replace(missing, "")
    for path in ("/post", "/close", "/delete", "/read"):
        answer = await submit(person, f"/ui/sessions/{invited}{path}", content="x")
        assert answer.status_code == 404
    async with follow(server, person, f"/ui/events/sessions/{invited}") as stream:
        assert stream.status == 404


async def test_no_text_of_an_agent_becomes_markup(
    agent: httpx.AsyncClient, server: Server, overseer: httpx.AsyncClient
) -> None:
    session_id = (await call(agent, "create_session", purpose=HOSTILE))["session_id"]
    async with client_of(
        server,
        X_API_Key=API_KEY,
        X_Agent_ID="<b>\"evil'><i>",
        X_Agent_Type="<u>",
        X_Agent_Instance='"><script>alert(5)</script>',
    ) as evil:
        await add(
            evil,
            session_id,
            f"{HOSTILE}\n```\n{HOSTILE}\n```\n",
            metadata={HOSTILE: [HOSTILE], "type": HOSTILE, "overseer": HOSTILE},
        )
        await add(
            evil,
            session_id,
            "reply",
            parent_message_id=1,
            recipients=["worker-7"],
            metadata={"type": "task", "task_id": 1, "state": HOSTILE},
        )
        await call(evil, "acquire_lease", session_id=session_id, name=HOSTILE[:200])

    paths = [
        "/ui/sessions",
        f"/ui/sessions/{session_id}",
        f"/ui/sessions/{session_id}?thread=1",
        f"/ui/sessions/{session_id}?agent={HOSTILE[:100]}&text={HOSTILE[:150]}&kind={HOSTILE[:90]}",
        f"/ui/sessions/{session_id}/timeline",
        f"/ui/sessions/{session_id}/messages/1",
        f"/ui/sessions/{session_id}/delete",
        f"/ui/sessions/{session_id}/close",
        "/ui/search?q=alert evil javascript",
        f"/ui/search?q={HOSTILE[:150]}",
        f"/ui/sessions?created_by={HOSTILE[:100]}",
        f"/ui/{HOSTILE[:100]}",
    ]
    for path in paths:
        page = await overseer.get(path)
        assert page.headers["content-type"].startswith("text/html"), path
        own = re.sub(r'<script src="/ui/static/[^"]+" defer></script>', "", page.text)
        own = re.sub("[0-9a-f]{16,}", "", own)  # tokens and hashes, which may contain 49
        for markup in ("<script", "<img", "onload=alert(4)>", "<b>", "<i>", "<u>", "49"):
            assert markup not in own or (markup == "49" and "{{7*7}}" in own), (path, markup)
        assert "\u202e" not in text_of(page), path
        assert "\u2066" not in text_of(page), path
        assert 'href="javascript' not in own


FILTERS = [
    ("agent=reviewer", [2, 5]),
    ("text=PARSER", [1, 4]),
    ("kind=decision", [3]),
    ("kind=question", [2]),
    ("kind=reply", [5]),
    ("kind=needs-ack", [4]),
    ("thread=2", [2, 5]),
    ("since=1h", [1, 2, 3, 4, 5]),
    ("from=2020-01-01T00:00&to=2020-01-02T00:00", []),
    ("agent=worker-7&text=parser&kind=", [1, 4]),
    ("visibility=public&since=24h&before=3", [1, 2]),
]
WRONG_FILTERS = ("visibility=nobody", "since=1y", "from=yesterday", "before=x", "text=" + "x" * 201)


async def test_filters_stand_in_the_address(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    async with client_of(server, X_API_Key=API_KEY, X_Agent_ID="reviewer") as reviewer:
        await add(agent, session_id, "The parser first")
        await add(reviewer, session_id, "why?", metadata={"question": True})
        await add(agent, session_id, "so be it", metadata={"type": "decision"})
        await add(agent, session_id, "read the Parser", requires_ack=True)
        await add(reviewer, session_id, "because", parent_message_id=2)

    for query, expected in FILTERS:
        page = await person.get(f"/ui/sessions/{session_id}?{query}")
        assert seqs_of(page) == expected, query
        for name, _, value in (pair.partition("=") for pair in query.split("&")):
            if value and name in ("agent", "text", "kind"):
                assert f'value="{value}"' in page.text, query
    for query in WRONG_FILTERS:
        refused = await person.get(f"/ui/sessions/{session_id}?{query}")
        assert refused.status_code == 400
        assert query.partition("=")[0] in text_of(refused)


async def test_a_filter_that_matches_little_is_looked_for_page_by_page(
    agent: httpx.AsyncClient, person: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_log, "SCANNED_AT_ONCE", 3)
    session_id = await create_session(agent)
    for number in range(10):
        await add(agent, session_id, "needle" if number in (0, 4) else "hay")

    whole = await person.get(f"/ui/sessions/{session_id}?text=needle")
    monkeypatch.setattr(session_log, "SCAN_LIMIT_S", 0)
    cut = await person.get(f"/ui/sessions/{session_id}?text=needle")

    assert seqs_of(whole) == [1, 5]
    assert seqs_of(cut) == []
    assert "Look further back" in text_of(cut)
    assert "before=8" in cut.text


async def test_new_messages_that_match_arrive_as_html_with_their_seq(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    await add(agent, session_id, "before")
    async with follow(
        server, person, f"/ui/events/sessions/{session_id}?text=want&after=1"
    ) as stream:
        await add(agent, session_id, "something else")
        await add(agent, session_id, "what I want", parent_message_id=1)
        await call(agent, "acquire_lease", session_id=session_id, name="build")
        events = [await stream.next(), await stream.next()]
        await call(agent, "close_session", session_id=session_id)
        ended = await stream.next()
    agents = await call(agent, "list_agents")

    assert [(event.event, event.id) for event in events] == [("message", "3"), ("refresh", "")]
    assert "what I want" in events[0].data
    assert "#1 worker-7" in re.sub(r"<[^>]*>", "", events[0].data)
    assert ended.event == "ended"
    assert "person" not in [one["agent_id"] for one in agents["agents"]]


async def test_a_stream_takes_one_of_the_callers_slots_and_ends_with_the_sign_in(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    path = f"/ui/events/sessions/{session_id}"
    async with follow(server, person, path) as stream:
        assert stream.status == 200
        async with follow(server, person, "/ui/events/fleet") as fleet:
            assert server.services.slots._count == 2
            await submit(person, "/ui/logout")
            server.services.bus.wake_all()
            for ended in (await stream.next(), await fleet.next()):
                assert (ended.event, ended.data) == ("ended", "Signed out")
        async with follow(server, person, path) as refused:
            assert refused.status == 401
    assert server.services.slots._count == 0


async def test_a_person_posts_as_overseer_and_the_agent_is_told(
    agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    path, page = f"/ui/sessions/{session_id}/post", f"/ui/sessions/{session_id}"

    sent = await submit(overseer, path, page=page, content="Hold on", kind="stop", to="worker-7")
    await submit(
        overseer, path, page=page, content="psst", kind="advice", to="worker-7", private="on"
    )
    answer = await overseer.post(
        path,
        data={
            "csrf": await read_csrf(overseer),
            "content": "to all",
            "kind": "message",
            "key": "k1",
        },
        headers={"HX-Request": "true"},
    )
    twice = await submit(overseer, path, page=page, content="to all", kind="message", key="k1")
    mine = await call(
        agent, "wait_for_messages", session_id=session_id, mentions_me=True, after_seq=0
    )
    everything = await call(agent, "get_messages", session_id=session_id)

    assert sent.headers["location"] == f"{page}#m1"
    first, second = mine["messages"]
    assert (first["content"], first["metadata"]) == (
        "@worker-7 Hold on",
        {"type": "stop", "overseer": "stop"},
    )
    assert (first["sender"], first["visibility"]) == ("overseer", "public")
    assert first["recipients"] == ["worker-7"]
    assert (second["content"], second["visibility"]) == ("psst", "private")
    assert "Posted as #3" in text_of(answer)
    assert 'name="csrf"' in answer.text
    assert twice.headers["location"] == f"{page}#m3"
    assert everything["total_count"] == 3


async def test_what_cannot_be_posted_is_said_and_the_text_is_kept(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    path = f"/ui/sessions/{session_id}/post"
    headers = {"HX-Request": "true", "X-CSRF-Token": await read_csrf(person)}
    wrong = [
        {"content": "keep me", "private": "on"},
        {"content": "keep me", "kind": "order"},
        {"content": "keep me", "reply_to": "99"},
        {"content": "keep me", "reply_to": "x"},
        {"content": "  "},
    ]

    for fields in wrong:
        answer = await person.post(path, data=fields, headers=headers)
        assert answer.status_code == 200
        assert 'role="alert"' in answer.text
        assert ("keep me" in answer.text) == ("keep me" in fields["content"])
        assert (await person.post(path, data=fields, headers=headers | {"HX-Request": ""})).text
    assert (await call(agent, "get_messages", session_id=session_id))["total_count"] == 0


async def test_deleting_shows_first_what_goes_and_is_audited(
    server: Server, agent: httpx.AsyncClient, overseer: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    await add(agent, session_id, "one")
    await add(agent, session_id, "two", visibility="private")
    for key in ("a", "b", "c"):
        await call(agent, "set_memory", key=key, value=1, session_id=session_id, scope="shared")
    await call(agent, "set_memory", key="own", value=1, session_id=session_id)
    await call(agent, "add_task", session_id=session_id, title="work")
    path = f"/ui/sessions/{session_id}/delete"

    preview = await overseer.get(path)
    refused = await person.get(path)
    still_there = await overseer.get(f"/ui/sessions/{session_id}")
    gone = await submit(overseer, path, page=path)

    shown = text_of(preview)
    assert "3 messages" in shown  # a task tells of itself in the log
    assert "4 memory entries" in shown
    assert "1 task" in shown
    assert refused.status_code == 403
    assert still_there.status_code == 200
    assert gone.headers["location"] == "/ui/sessions"
    assert (await overseer.get(f"/ui/sessions/{session_id}")).status_code == 404
    async with client_of(server, X_API_Key="the-admins-key-0123456789") as admin:
        audit = await call(admin, "get_audit_log", event_type="session_deleted")
    assert audit["entries"][0]["agent_id"] == "overseer"


async def test_a_closed_session_is_shown_without_a_form(
    agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    path = f"/ui/sessions/{session_id}"
    asked = await overseer.get(f"{path}/close")

    closed = await submit(overseer, f"{path}/close", page=f"{path}/close")
    page = await overseer.get(path)

    assert "read-only" in text_of(asked)
    assert closed.headers["location"] == path
    assert "closed" in text_of(page)
    assert "post-content" not in page.text
    assert "data-live" not in page.text


async def test_exports_hold_everything_the_person_may_see(
    agent: httpx.AsyncClient, person: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_log, "EXPORTED_AT_ONCE", 2)
    session_id = await create_session(agent)
    for number in range(5):
        await add(agent, session_id, f"line {number}\n# not a heading", metadata={"n": number})
    await add(agent, session_id, "not for you", visibility="private")
    listed = await call(agent, "get_messages", session_id=session_id)

    lines = await person.get(f"/ui/sessions/{session_id}/export.jsonl")
    markdown = await person.get(f"/ui/sessions/{session_id}/export.md")

    *messages, end = [json.loads(line) for line in lines.text.splitlines()]
    assert [{n: v for n, v in one.items() if n != "chain"} for one in messages] == listed[
        "messages"
    ][:5]
    assert (end["record"], end["count"], end["session_id"]) == ("end", 5, session_id)
    assert check_log(io.BytesIO(lines.content), None)["count"] == 5
    assert lines.headers["content-disposition"] == f'attachment; filename="{session_id}.jsonl"'
    assert markdown.text.startswith("# tests\n")
    assert markdown.text.count("\n## #") == 5
    assert "\n# not a heading" not in markdown.text
    assert '    {"n":4}' in markdown.text


async def test_a_log_whose_old_messages_were_removed_says_where_it_begins(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    for content in ("the question", "something else"):
        await add(agent, session_id, content)
    end = utc_now()
    await add(agent, session_id, "an answer", parent_message_id=1)
    path = f"/ui/sessions/{session_id}"
    assert "The log begins" not in (await person.get(path)).text
    remove_some = server.services.store.expiry.remove_some
    assert (await remove_some(session_id, end, lambda *_: make_audit())).removed == 2

    page, thread = await person.get(path), await person.get(f"{path}?thread=1")
    lines, markdown = (
        await person.get(f"{path}/export.jsonl"),
        await person.get(f"{path}/export.md"),
    )

    assert "The log begins at #3. Older messages were removed by age." in text_of(page)
    assert (seqs_of(page), seqs_of(thread)) == ([3], [3])
    assert (await person.get(f"{path}/messages/1")).status_code == 404
    assert (await person.get(f"{path}?thread=2")).status_code == 404
    assert (await person.get(f"{path}/timeline")).status_code == 200
    assert json.loads(lines.text.splitlines()[-1])["first_seq"] == 3
    assert check_log(io.BytesIO(lines.content), None)["count"] == 1
    assert "- Messages before #3 were removed by age\n" in markdown.text


async def test_a_long_message_is_cut_until_it_is_asked_for(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    await add(agent, session_id, "x" * 5000 + "THE END")
    path = f"/ui/sessions/{session_id}"

    listed = await person.get(path)
    part = await person.get(f"{path}/messages/1", headers={"HX-Request": "true"})
    page = await person.get(f"{path}/messages/1")

    assert "THE END" not in listed.text
    assert "Show all 5,007 characters" in text_of(listed)
    assert part.text.startswith("<article")
    assert "THE END" in part.text
    assert "THE END" in page.text
    assert "Show it in the log" in text_of(page)


async def test_the_timeline_has_a_lane_for_each_agent(
    server: Server, agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    await call(agent, "add_task", session_id=session_id, title="work")
    claimed = await call(agent, "claim_task", session_id=session_id)
    token = (claimed.get("task") or claimed)["fencing_token"]
    await call(agent, "finish_task", session_id=session_id, task_id=1, fencing_token=token)
    await call(agent, "acquire_lease", session_id=session_id, name="src")
    async with client_of(server, X_API_Key=API_KEY, X_Agent_ID="reviewer") as reviewer:
        await add(reviewer, session_id, "hello")
    now = utc_now()
    waits_for = Waiting("lease", session_id, "src")
    seen = InstanceSeen("reviewer", "", now, "", waits_for, now - timedelta(seconds=425))
    await server.services.store.agents.note_instances([seen], forget_before=now - timedelta(days=1))

    page = await overseer.get(f"/ui/sessions/{session_id}/timeline?span=15m")
    bar = re.search(r'class="bar-wait" x="([\d.]+)" y="15" width="([\d.]+)"', page.text)

    assert 'aria-label="worker-7: 3 messages, 1 lease, 1 task"' in page.text
    assert 'aria-label="reviewer: 1 message, waiting for the lease src, 7 min so far"' in page.text
    assert bar is not None
    begin, width = float(bar[1]), float(bar[2])
    assert begin == pytest.approx(1000 * 0.94 * (1 - 425 / 900), abs=5)
    assert begin + width == pytest.approx(1000 * 0.94, abs=1)
    assert "Holds src" in page.text
    assert "Task 1: done" in page.text


@pytest.mark.parametrize(
    "age_min, idle_min, span",
    [
        (3, 3, "15m"),
        (40, 1, "1h"),
        (9000, 1, "1h"),
        (9000, 90, "6h"),
        (90, 90, "6h"),
        (1e6, 1e5, "24h"),
    ],
)
def test_the_timeline_begins_with_the_span_that_shows_something(
    age_min: float, idle_min: float, span: str
) -> None:
    now = utc_now()
    begun, last = now - timedelta(minutes=age_min), now - timedelta(minutes=idle_min)
    assert choose_span(begun, last) == span


async def test_marking_read_moves_only_the_persons_own_cursor(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    await add(agent, session_id, "news for @person and @worker-7")
    path = f"/ui/sessions/{session_id}"

    before = await person.get(path)
    await submit(person, f"{path}/read", page=path, seq="1")
    after = await person.get(path)

    assert "Mark read" in text_of(before)
    assert "Mark read" not in text_of(after)


async def test_search_marks_what_matches_and_leads_to_the_message(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = (await call(agent, "create_session", purpose="Grammar work"))["session_id"]
    await add(agent, session_id, "The tokenizer <drops> the last newline")

    page = await person.get("/ui/search?q=tokeniser newline")
    nothing = await person.get("/ui/search?q=zzzzqqqq")
    place = {"session_id": session_id, "scope": "shared"}
    await call(agent, "set_memory", key="notes", value="tokenizer notes", **place)
    entries = await person.get("/ui/search?q=tokenizer&within=memory")
    entry = re.search(r'class="result-place" href="([^"]*)"', entries.text)
    too_long = await person.get("/ui/search", params={"q": "x" * 501})

    assert "<mark>tokenizer</mark>" in page.text
    assert "&lt;drops&gt;" in page.text
    assert "Grammar work" in text_of(page)
    assert f'href="/ui/sessions/{session_id}?before=26#m1"' in page.text
    assert "Nothing found" in text_of(nothing)
    assert entry is not None
    assert "tokenizer notes" in text_of(await person.get(html.unescape(entry[1])))
    assert too_long.status_code == 400
