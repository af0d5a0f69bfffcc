"""Memory on the dashboard: entries by place, one value, and its deletion after a preview."""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode

import httpx
import pytest

from shared_context_server.ui.memory import MEMBERS_SHOWN
from tests.rest.conftest import call, create_session
from tests.ui.conftest import read_csrf, text_of

HOSTILE = "<script>alert(1)</script>\"'&key=other"


async def test_entries_are_listed_by_place_and_prefix(
    agent: httpx.AsyncClient, person: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    for key, place in [
        ("plan/a", {"scope": "shared", "session_id": session_id, "expires_in": 600}),
        (HOSTILE, {"scope": "shared", "session_id": session_id}),
        ("everywhere", {"scope": "shared"}),
        ("mine", {"scope": "private"}),
    ]:
        await call(agent, "set_memory", key=key, value=1, **place)
    everywhere = await person.get("/ui/memory")
    of_session = await person.get(f"/ui/memory?session_id={session_id}")
    some = await person.get(f"/ui/memory?session_id={session_id}&prefix=plan%2F")
    private = await overseer.get("/ui/memory?scope=private")

    assert "everywhere" in text_of(everywhere)
    assert "mine" not in text_of(everywhere)
    assert "plan/a" in text_of(of_session)
    assert "<script>alert" not in of_session.text
    assert of_session.text.count('<time class="left"') == 1
    assert HOSTILE not in text_of(some)
    assert "No entries here" in text_of(
        private
    )  # private memory is the agent's own, also for admins
    link = re.search(r'href="(/ui/memory/entry\?[^"]*script[^"]*)"', of_session.text)
    assert link is not None
    entry = await person.get(link[1].replace("&amp;", "&"))
    assert entry.status_code == 200
    assert HOSTILE in text_of(entry)


async def test_an_entry_shows_its_value_folded_and_says_that_older_ones_are_not_kept(
    agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    value = {"short": [1, 2], "long": "x" * 500, "nested": {str(n): HOSTILE for n in range(9)}}
    await call(agent, "set_memory", key="plan", value=1, scope="shared")
    await call(agent, "delete_memory", key="plan", scope="shared")
    for one in (1, value):
        await call(agent, "set_memory", key="plan", value=one, scope="shared")
    page = await overseer.get("/ui/memory/entry?key=plan&scope=shared")
    text = text_of(page)

    assert "Version 2, written by worker-7" in text
    assert "the server keeps the newest value only" in text
    assert "Deleted before by worker-7" in text
    assert "short [1,2]" in text
    assert "nested 9 members" in text
    assert "<script>alert" not in page.text
    await call(agent, "set_memory", key="list", value=list(range(5000)), scope="shared")
    large = await overseer.get("/ui/memory/entry?key=list&scope=shared")
    assert large.text.count('class="member"') == MEMBERS_SHOWN
    assert "and 4,800 more" in text_of(large)
    missing = await overseer.get("/ui/memory/entry?key=none&scope=shared")
    assert missing.status_code == 404


async def test_an_entry_is_deleted_only_in_the_version_that_was_shown(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    await call(agent, "set_memory", key="plan", value="a", scope="shared")
    preview = await person.get("/ui/memory/delete?key=plan&scope=shared")
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', preview.text))
    assert "version 1, last written by worker-7" in text_of(preview)
    assert "3 bytes of JSON" in text_of(preview)
    await call(agent, "set_memory", key="plan", value="b", scope="shared")
    refused = await person.post("/ui/memory/delete", data=fields)
    assert refused.status_code == 409
    token = await read_csrf(person)
    deleted = await person.post(
        "/ui/memory/delete", data=fields | {"csrf": token, "expected_version": "2"}
    )
    assert deleted.status_code == 303
    assert "No entries here" in text_of(await person.get(deleted.headers["location"]))


@pytest.mark.parametrize("key, shown", [(" ", '" "'), ("\u200b", r'"\u200b"')])
async def test_a_key_that_would_look_empty_is_quoted_and_can_be_deleted(
    key: str, shown: str, agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    await call(agent, "set_memory", key=key, value=1, scope="shared")
    assert (
        f"<code>{html.escape(shown, quote=True).replace('&quot;', '&#34;')}</code>"
        in (await overseer.get("/ui/memory")).text
    )
    page = "/ui/memory/delete?" + urlencode({"key": key, "scope": "shared"})
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', (await overseer.get(page)).text))
    assert fields["key"] == key
    assert (await overseer.post("/ui/memory/delete", data=fields)).status_code == 303
    assert "No entries here" in text_of(await overseer.get("/ui/memory"))


async def test_no_text_of_a_list_turns_the_page(
    agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    turned = "\u202eturned"
    session_id = (await call(agent, "create_session", purpose=turned))["session_id"]
    await call(agent, "set_memory", key=turned, value=1, session_id=session_id, scope="shared")
    await call(agent, "acquire_lease", name=turned, session_id=session_id)
    await call(agent, "add_task", title=turned, session_id=session_id)
    of_it = f"?session_id={session_id}"
    for path in ("", "/sessions", "/memory", f"/memory{of_it}", "/leases", f"/tasks{of_it}"):
        page = await overseer.get("/ui" + path)
        assert page.status_code == 200
        assert "\u202e" not in page.text, path
