"""The pages audit, clock, server and keys."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx
import pytest

from shared_context_server.models import AuditEntry
from shared_context_server.observability.history import Calls, Minute
from shared_context_server.server import Server, sample_metrics
from shared_context_server.steady_time import utc_now
from tests.rest.conftest import call, client_of, create_session
from tests.ui.conftest import follow, submit, text_of

HOSTILE = "<script>alert(1)</script>\"'>"


@pytest.mark.parametrize("path", ["/audit", "/server", "/keys", "/events/server"])
async def test_what_only_admins_may_see_others_are_not_shown(
    path: str, person: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    assert (await person.get("/ui" + path)).status_code == 403
    assert (await visitor.get("/ui" + path)).status_code == 303
    assert f'href="/ui{path}"' not in (await person.get("/ui/tasks")).text


async def test_the_audit_log_is_filtered_and_paged(
    server: Server, agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    audit = server.services.store.audit
    for number in range(101):
        await audit.add(AuditEntry("tested", HOSTILE, None, {"number": number, "x": [HOSTILE]}))
    page = await overseer.get("/ui/audit?event_type=tested")
    older = re.search(r'href="([^"]*)" rel="next"', page.text)
    assert older is not None
    last = await overseer.get(older[1].replace("&amp;", "&"))
    of_session = await overseer.get(f"/ui/audit?session_id={session_id}")
    nothing = await overseer.get("/ui/audit?event_type=none&after=2020-01-01T10:00")

    assert page.text.count('class="lead"') == 100
    assert last.text.count('class="lead"') == 1
    assert "<script>alert" not in page.text
    assert "session_created" in text_of(of_session)
    assert of_session.text.count('class="lead"') == 1
    assert "No entry matches" in text_of(nothing)
    for wrong in ("after=yesterday", "cursor=x", "agent_id=" + "x" * 200, "agent_id=%00"):
        assert (await overseer.get(f"/ui/audit?{wrong}")).status_code == 400


async def test_without_a_clock_daemon_the_page_says_how_to_start_it(
    server: Server, person: httpx.AsyncClient
) -> None:
    page = await person.get("/ui/clock")
    assert "The clock daemon does not run" in text_of(page)
    assert "shared-context-server clock" in page.text
    async with follow(server, person, "/ui/events/clock") as stream:
        assert (await stream.next()).event == "refresh"


async def test_the_server_shows_its_last_hour(
    server: Server, agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    early = await overseer.get("/ui/server")
    await call(agent, "get_time")
    await agent.post("/mcp/tool/get_time", json={"unknown": 1})
    await sample_metrics(server.services, server.metrics)
    page = await overseer.get("/ui/server")
    text = text_of(page)

    assert "No tool was called in the last hour" in text_of(early)
    assert "Calls, last hour 2 Errors, last hour 1" in text
    assert re.search(r"get_time 2 1 \d+\.\d \d+\.\d", text)
    assert page.text.count('<svg viewBox="0 0 480 96"') == 5
    assert "Counted by the process" in text
    assert server.settings.storage_url not in page.text  # it may have a password


async def test_a_chart_has_a_bar_for_each_minute_and_says_what_it_shows(
    server: Server, overseer: httpx.AsyncClient
) -> None:
    minute = Minute(utc_now().replace(second=0, microsecond=0))
    minute.by_tool["add_message"] = Calls(count=520, errors=3)
    minute.by_tool["add_message"].buckets[0] = 520
    minute.by_tool["wait_for_messages"].buckets[-1] = 900  # waits are no latency
    minute.waiters = 12
    server.services.history._minutes.append(minute)
    page = (await overseer.get("/ui/server")).text
    assert re.search(
        'aria-label="Calls a minute: 0 +in the last full minute, at most 520 at ', page
    )
    assert "3 errors." in page
    assert re.search(
        "Time of a call, p95: 0 ms in the last full minute, at most 0[.][0-9]+ at", page
    )
    assert "top 600" in page


async def test_a_key_is_shown_once_works_and_is_revoked_after_a_preview(
    server: Server, overseer: httpx.AsyncClient
) -> None:
    assert "No keys were created yet" in text_of(await overseer.get("/ui/keys"))
    answer = await submit(
        overseer, "/ui/keys", agent_id="builder-1", agent_type="", permissions="read,write"
    )
    assert (answer.status_code, answer.text) == (303, "")
    where = answer.headers["location"]
    created = await overseer.get(where)
    key = re.search(r'data-copy="(scs_[^"]+)"', created.text)
    assert key is not None
    assert key[1] not in where
    loaded_again = await overseer.get(where)
    assert key[1] not in loaded_again.text
    assert "was shown once" in text_of(loaded_again)
    assert len(await server.services.identity.keys.list_all()) == 1
    listed = await overseer.get("/ui/keys")
    assert key[1] not in listed.text
    key_id = re.search(r"key_id=(key_\w+)", listed.text)
    assert key_id is not None
    async with client_of(server, X_API_Key=key[1]) as builder:
        await call(builder, "authenticate_agent", agent_id="builder-1")
        preview = await overseer.get(f"/ui/keys/revoke?key_id={key_id[1]}")
        assert "1 key, read, write 1 token that is valid now 1 agent that has them" in text_of(
            preview
        )
        revoked = await submit(overseer, "/ui/keys/revoke", key_id=key_id[1])
        refused = await builder.post("/mcp/tool/get_time", json={})
    assert (revoked.status_code, refused.status_code) == (303, 401)
    assert "revoked" in text_of(await overseer.get("/ui/keys"))
    again = await submit(overseer, "/ui/keys/revoke", key_id=key_id[1])
    assert again.status_code == 400
    audit = await overseer.get("/ui/audit?agent_id=overseer&event_type=key_revoked")
    assert "of_agent_id builder-1" in text_of(audit)


async def create(overseer: httpx.AsyncClient, **fields: str) -> httpx.Response:
    """Fill in the form for a key, and look at the page that it leads to."""
    answer = await submit(overseer, "/ui/keys", **fields)
    return await overseer.get(answer.headers["location"])


async def test_a_key_is_rotated_after_a_preview_and_both_work_meanwhile(
    server: Server, overseer: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    fields = {"agent_id": "builder-1", "agent_type": "", "permissions": "read"}
    created = await create(overseer, **fields, expires_in_days="30")
    old = re.search(r'data-copy="(scs_[^"]+)"', created.text)
    [record] = await server.services.identity.keys.list_all()
    path = f"/ui/keys/rotate?key_id={record.id}"
    preview = text_of(await overseer.get(path))
    refused = await submit(person, "/ui/keys/rotate", key_id=record.id, overlap_hours="1")
    wrong = await submit(overseer, "/ui/keys/rotate", key_id=record.id, overlap_hours="-5")
    rotated = await submit(overseer, "/ui/keys/rotate", key_id=record.id, overlap_hours="1")
    shown = await overseer.get(rotated.headers["location"])
    new = re.search(r'data-copy="(scs_[^"]+)"', shown.text)

    assert "1 new key for builder-1, read; it lives for 30 days, like the old one" in preview
    assert (refused.status_code, wrong.status_code, rotated.status_code) == (403, 400, 303)
    assert f"It replaces {record.id} , which works until" in text_of(shown)
    assert old is not None
    assert new is not None
    for key in (old[1], new[1]):
        async with client_of(server, X_API_Key=key) as builder:
            await call(builder, "list_sessions")
    listed = await overseer.get("/ui/keys")
    assert listed.text.count("/ui/keys/rotate?") == 1  # of the new one
    again = await submit(overseer, "/ui/keys/rotate", key_id=record.id, overlap_hours="1")
    assert again.status_code == 400
    assert "Rotate key_" in text_of(again)
    audit = await overseer.get("/ui/audit?agent_id=overseer&event_type=key_rotated")
    assert f"replaces {record.id}" in text_of(audit)


async def test_the_page_says_when_a_key_expires_was_used_and_what_replaced_it(
    server: Server, overseer: httpx.AsyncClient
) -> None:
    fields = {"agent_id": "team-*", "agent_type": "", "permissions": "read"}
    created = await create(overseer, **fields, expires_in_days="30")
    key = re.search(r'data-copy="(scs_[^"]+)"', created.text)
    assert key is not None
    [record] = await server.services.identity.keys.list_all()
    assert record.expires_at is not None
    assert record.expires_at - record.created_at > timedelta(days=29)
    page = text_of(await overseer.get("/ui/keys"))
    assert "team-*" in page
    assert "never" in page
    async with client_of(server, X_API_Key=key[1], X_Agent_ID="team-1") as builder:
        await call(builder, "list_sessions")
    assert "never" not in text_of(await overseer.get("/ui/keys"))
    successor, _ = await server.services.identity.keys.rotate(record.id, overlap=timedelta())
    assert f"replaced by {successor.id}" in text_of(await overseer.get("/ui/keys"))
    wrong = await submit(overseer, "/ui/keys", **fields, expires_in_days="1000000")
    assert wrong.status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"agent_id": "", "permissions": "read"},
        {"agent_id": "x", "permissions": "everything"},
        {"agent_id": "two\nlines", "permissions": "read"},
        {"agent_id": "x" * 200, "permissions": "read"},
    ],
)
async def test_a_wrong_form_keeps_what_was_written_and_creates_nothing(
    fields: dict[str, str], overseer: httpx.AsyncClient
) -> None:
    answer = await submit(overseer, "/ui/keys", agent_type=HOSTILE, **fields)
    assert answer.status_code == 400
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "No keys were created yet" in text_of(await overseer.get("/ui/keys"))
