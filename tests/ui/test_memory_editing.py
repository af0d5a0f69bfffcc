"""Writing memory on the dashboard: a new entry, a new version, and what happens when another writes too."""

from __future__ import annotations

import html
import re
from typing import Any

import httpx

from shared_context_server.models import Permission
from shared_context_server.server import Server
from tests.rest.conftest import call, create_session
from tests.ui.conftest import browser_of, read_csrf, sign_in, text_of

HOSTILE = "</textarea><script>alert(1)</script>"
PLAN = "/ui/memory/edit?key=plan&scope=shared"


async def open_form(browser: httpx.AsyncClient, path: str) -> dict[str, str]:
    """The fields of the form as a browser would send them."""
    return fields_of(await browser.get(path))


def fields_of(page: httpx.Response) -> dict[str, str]:
    form = page.text[page.text.index('class="card entry-form"') :]
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    text = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", form, re.DOTALL)
    assert text is not None
    fields["value"] = html.unescape(text[1]).replace("\n", "\r\n")
    for name, options in re.findall(
        r'<select id="[^"]+" name="(\w+)">(.*?)</select>', form, re.DOTALL
    ):
        chosen = re.search(r'value="([^"]*)" selected', options)
        fields[name] = chosen[1] if chosen else re.findall(r'value="([^"]*)"', options)[0]
    return fields


async def read(agent: httpx.AsyncClient, **place: Any) -> dict[str, Any]:
    return await call(agent, "get_memory", **({"key": "plan", "scope": "shared"} | place))


VALUES = [
    "two\nlines, 中文 عربي",
    "\nan empty line first",
    "a tab\tand a \r return",
    "\u202eturned",
    HOSTILE,
    {"a": [1, 2.5, None, True], "b": "x\ny", "c": {}},
    -(2**63),
    1e300,
    None,
    "",
]


async def test_saving_without_a_change_stores_the_same_value_with_its_metadata_and_expiry(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    kept = {"metadata": {"type": "plan"}, "expires_in": 500_000}
    for number, value in enumerate(VALUES):
        key = f"plan-{number}"
        await call(agent, "set_memory", key=key, value=value, scope="shared", **kept)
        before = await read(agent, key=key)
        page = await person.get(f"/ui/memory/edit?key={key}&scope=shared")
        saved = await person.post("/ui/memory/edit", data=fields_of(page))
        after = await read(agent, key=key)

        assert "<script>alert" not in page.text
        assert saved.status_code == 303
        assert after["value"] == value
        assert (after["version"], after["updated_by"]) == (2, "person")
        assert after["metadata"] == {"type": "plan"}
        assert after["expires_at"][:15] == before["expires_at"][:15]


async def test_a_conflict_is_told_and_nothing_is_lost(
    agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    await call(agent, "set_memory", key="plan", value="a", scope="shared")
    mine = await open_form(person, PLAN) | {"value": "mine\r\nof two lines"}
    await call(agent, "set_memory", key="plan", value="theirs", scope="shared")
    told = await person.post("/ui/memory/edit", data=mine)
    kept = await read(agent)
    again = fields_of(told)
    saved = await person.post("/ui/memory/edit", data=again)

    assert told.status_code == 409
    assert "worker-7 has written version 2 since you opened the form" in text_of(told)
    assert "theirs" in text_of(told)
    assert "Save as version 3" in text_of(told)
    assert kept["value"] == "theirs"
    assert again["value"] == mine["value"]
    assert saved.status_code == 303
    assert (await read(agent))["value"] == "mine\nof two lines"
    await call(agent, "delete_memory", key="plan", scope="shared")
    deleted = await person.post("/ui/memory/edit", data=again | {"expected_version": "3"})
    assert "was deleted or has expired since you opened it" in text_of(deleted)
    assert "Create it again" in text_of(deleted)
    assert (await person.post("/ui/memory/edit", data=fields_of(deleted))).status_code == 303
    assert (await read(agent))["version"] == 1


async def test_a_new_entry_is_created_in_its_place_and_writes_over_none(
    agent: httpx.AsyncClient, person: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    place = {"session_id": session_id, "scope": "private"}
    form = await open_form(person, f"/ui/memory/edit?session_id={session_id}&scope=private")
    given = form | {"key": "own", "value": '{"a": 1}', "life": "3600"}
    saved = await person.post("/ui/memory/edit", data=given)
    twice = await person.post("/ui/memory/edit", data=given)
    private = await overseer.get("/ui/audit?event_type=memory_edited")

    assert {name: form[name] for name in place} == place
    assert saved.status_code == 303
    entry = text_of(await person.get(saved.headers["location"]))
    assert "Version 1, written by person" in entry
    assert "a 1" in entry
    assert twice.status_code == 409
    assert "person has written version 1 since" in text_of(twice)
    assert "own" not in text_of(private)  # the key of private memory is nobody else's
    await person.post("/ui/memory/edit", data=given | {"key": "shared", "scope": "shared"})
    audited = text_of(await overseer.get(f"/ui/audit?session_id={session_id}"))
    assert "key shared scope shared" in audited


WRONG = [
    ({"value": "{"}, "To store plain text, choose Text"),
    ({"value": "[1e999]"}, "value is not strict JSON"),
    ({"value": "[" * 150 + "]" * 150}, "nested deeper"),
    ({"value": "9" * 30}, "integer"),
    ({"value": '"' + "x" * 262_200 + '"'}, "262"),
    ({"key": ""}, "key"),
    ({"key": "k" * 256}, "key"),
    ({"life": "12"}, "Kept"),
    ({"kind": "xml"}, "Write it as"),
]


async def test_a_wrong_form_keeps_what_was_written_and_stores_nothing(
    person: httpx.AsyncClient,
) -> None:
    form = await open_form(person, "/ui/memory/edit?scope=shared") | {"key": "plan", "value": "1"}
    for wrong, says in WRONG:
        answer = await person.post("/ui/memory/edit", data=form | wrong)
        assert answer.status_code in (400, 413)
        assert says in text_of(answer)
        assert fields_of(answer)["value"] == (form | wrong)["value"]
    assert "No entries here" in text_of(await person.get("/ui/memory"))


async def test_who_may_not_write_is_offered_no_form(
    server: Server, agent: httpx.AsyncClient, person: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    place = {"session_id": session_id, "scope": "shared"}
    await call(agent, "set_memory", key="plan", value=1, **place)
    entry = f"/ui/memory/entry?key=plan&session_id={session_id}&scope=shared"
    edit = entry.replace("entry", "edit")
    form = await open_form(person, edit)
    token = await read_csrf(person)
    _, key = await server.services.identity.keys.create("reader", [Permission.READ])
    async with browser_of(server) as reader:
        await sign_in(reader, key)
        own = await read_csrf(reader)
        refused = await reader.post("/ui/memory/edit", data=form | {"csrf": own})
        assert (refused.status_code, (await reader.get(edit)).status_code) == (403, 403)
        for path in (entry, f"/ui/memory?session_id={session_id}"):
            assert "/ui/memory/edit" not in (await reader.get(path)).text
    assert "/ui/memory/edit" in (await person.get(entry)).text
    await call(agent, "close_session", session_id=session_id)
    assert "/ui/memory/edit" not in (await person.get(entry)).text
    closed = await person.post("/ui/memory/edit", data=form | {"csrf": token, "value": "2"})
    assert closed.status_code == 409
    assert "closed" in text_of(closed)
    assert (await read(agent, session_id=session_id))["value"] == 1
