"""Sign in by key and by link, stay signed in, sign out."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import IssuedToken
from shared_context_server.auth.sign_in_links import LINK_LIFE, issue_code, redeem_code
from shared_context_server.auth.tokens import hash_handle
from shared_context_server.errors import Unauthenticated
from shared_context_server.models import Caller
from shared_context_server.server import Server, open_server
from shared_context_server.steady_time import utc_now
from tests.rest.conftest import client_of
from tests.settings import ADMIN_API_KEY, API_KEY, make_settings
from tests.ui.conftest import browser_of, sign_in, submit, text_of

FROM_TERMINAL = {
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-User": "?1",
}


async def make_code(server: Server, agent_id: str = "overseer") -> str:
    """What `scs ui` makes."""
    connection = await server.services.identity.authenticate_headers(
        authorization=None, api_key=ADMIN_API_KEY, agent_id=agent_id, agent_type="human"
    )
    return await issue_code(server.services.store, connection.caller)


async def test_a_stranger_is_led_to_the_form_and_back_to_the_page_asked_for(
    visitor: httpx.AsyncClient,
) -> None:
    asked = "/ui/sessions?status=all"

    led = await visitor.get(asked)
    form = await visitor.get(led.headers["location"])
    entered = await visitor.post(
        "/ui/login", data={"api_key": API_KEY, "agent_id": "ann", "next": asked}
    )

    assert led.status_code == 303
    assert 'name="api_key" type="password"' in form.text
    assert 'name="agent_id"' in form.text
    assert "sessions?status=all" in form.text
    assert entered.headers["location"] == asked
    assert (await visitor.get(asked)).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "https://elsewhere.example/ui",
        "//elsewhere.example/ui",
        "/\\elsewhere.example",
        "/ui\t/../x",
        "/ui/../mcp",
        "/uix",
        "javascript:alert(1)//ui",
        "/ui\r\nX: y",
        "http:///ui",
        "//[",
        "/ui/" + "x" * 3000,
    ],
)
async def test_a_sign_in_leads_to_no_other_place(visitor: httpx.AsyncClient, address: str) -> None:
    entered = await visitor.post(
        "/ui/login", data={"api_key": API_KEY, "agent_id": "ann", "next": address}
    )

    assert entered.headers["location"] == "/ui"


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    server: Server, visitor: httpx.AsyncClient
) -> None:
    cookie = (await sign_in(visitor, API_KEY, "ann")).headers["set-cookie"]
    async with client_of(server) as secure:
        secure.base_url = httpx.URL("https://127.0.0.1:23456")
        over_tls = await sign_in(secure, API_KEY, "ann")

    attributes = cookie.split("; ")[1:]
    assert attributes == ["Max-Age=86400", "Path=/ui", "HttpOnly", "SameSite=Lax"]
    assert over_tls.headers["set-cookie"].endswith("; Secure")


async def test_a_wrong_key_is_said_so_and_counts_for_the_limit(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, failed_auth_limit="2/minute")
    async with open_server(settings) as server, browser_of(server) as browser:
        tries = [
            await browser.post("/ui/login", data={"api_key": "wrong", "agent_id": "ann"})
            for _ in range(3)
        ]
        entered = await sign_in(browser, API_KEY, "ann")
        told = server.metrics.render().decode()

    for answer, count in (("refused", 2), ("limited", 1)):
        assert f'scs_failed_authentications_total{{answer="{answer}"}} {count}.0' in told
    assert [answer.status_code for answer in tries] == [401, 401, 429]
    assert "The API key is not valid." in text_of(tries[0])
    assert 'value="ann"' in tries[0].text
    assert "wrong" not in tries[0].text
    assert tries[2].headers["retry-after"]
    assert entered.status_code == 303


async def test_a_bound_key_signs_in_as_its_agent_only(
    server: Server, visitor: httpx.AsyncClient
) -> None:
    _, key = await server.services.identity.keys.create("builder", ["read"])

    other = await visitor.post("/ui/login", data={"api_key": key, "agent_id": "somebody"})
    await sign_in(visitor, key)

    assert other.status_code == 403
    assert "builder" in text_of(await visitor.get("/ui/sessions"))


async def test_signing_out_ends_the_token_everywhere(
    server: Server, overseer: httpx.AsyncClient
) -> None:
    async with browser_of(server) as thief:
        thief.cookies.update(overseer.cookies)
        left = await submit(overseer, "/ui/logout")
        with_the_old_cookie = await thief.get("/ui/sessions")

    assert left.headers["location"] == "/ui/login"
    assert not overseer.cookies
    assert with_the_old_cookie.headers["location"].startswith("/ui/login")


async def test_a_link_opened_from_a_terminal_signs_in_once(server: Server) -> None:
    code = await make_code(server)
    async with browser_of(server) as first, browser_of(server) as second:
        entered = await first.get("/ui/login", params={"code": code}, headers=FROM_TERMINAL)
        again = await second.get("/ui/login", params={"code": code}, headers=FROM_TERMINAL)
        page = await first.get("/ui/sessions")

    assert (entered.status_code, entered.headers["location"]) == (303, "/ui")
    assert "overseer" in text_of(page)
    assert "Audit" in text_of(page)
    assert again.status_code == 401
    assert not second.cookies


async def test_a_used_link_leads_on_whoever_is_signed_in(server: Server) -> None:
    code = await make_code(server)
    async with browser_of(server) as first:
        await first.get("/ui/login", params={"code": code}, headers=FROM_TERMINAL)
        again = await first.get("/ui/login", params={"code": code}, headers=FROM_TERMINAL)
        by_button = await first.post("/ui/login", data={"code": code, "next": "/ui/tasks"})
    assert (again.status_code, again.headers["location"]) == (303, "/ui")
    assert (by_button.status_code, by_button.headers["location"]) == (303, "/ui/tasks")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**FROM_TERMINAL, "Sec-Purpose": "prefetch;prerender"},
        {**FROM_TERMINAL, "Sec-Fetch-Site": "cross-site"},
    ],
    ids=["a preview", "prefetching", "a link on another site"],
)
async def test_only_looking_at_a_link_does_not_use_it_up(
    server: Server, visitor: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    code = await make_code(server)

    looked = await visitor.get("/ui/login", params={"code": code}, headers=headers)
    pressed = await visitor.post("/ui/login", data={"code": code})

    assert looked.status_code == 200
    assert "set-cookie" not in looked.headers
    assert pressed.status_code == 303
    assert pressed.cookies


async def test_of_many_who_redeem_a_link_at_once_one_is_signed_in(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with open_server(settings) as one, open_server(settings) as other:
        code = await make_code(one)
        tries = [
            redeem_code(server.services.store, server.services.identity, code, Connection())
            for server in (one, other) * 5
        ]
        ended = await asyncio.gather(*tries, return_exceptions=True)

    assert sum(isinstance(result, IssuedToken) for result in ended) == 1
    assert sum(isinstance(result, Unauthenticated) for result in ended) == 9


async def test_a_link_ends_after_two_minutes_and_with_its_key(
    server: Server, visitor: httpx.AsyncClient
) -> None:
    store = server.services.store
    old = await make_code(server)
    stored = await store.credentials.find_by_handle(hash_handle(old))
    assert stored is not None
    assert stored.expires_at - stored.issued_at == LINK_LIFE == timedelta(minutes=2)
    assert stored.expires_at > utc_now()
    of_no_key = await issue_code(
        store, Caller("overseer", "human", stored.permissions, "key_that_was_revoked")
    )

    for code in (of_no_key, "ui_unknown", "agt_x", "x" * 5000):
        refused = await visitor.post("/ui/login", data={"code": code})
        assert refused.status_code == 401
        assert not visitor.cookies


async def test_a_code_is_no_credential(server: Server) -> None:
    code = await make_code(server)
    async with client_of(server, X_API_Key=ADMIN_API_KEY) as client:
        as_token = await client.post("/mcp/tool/list_sessions", json={"auth_token": code})
        as_bearer = await client.get("/events", headers={"Authorization": f"Bearer {code}"})

    assert (as_token.status_code, as_bearer.status_code) == (401, 401)


async def test_without_authentication_the_pages_are_open_and_forms_are_still_checked(
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path, auth_enabled=False)
    async with open_server(settings) as server, browser_of(server) as browser:
        page = await browser.get("/ui/sessions")
        forged = await browser.post("/ui/logout", data={"csrf": "0" * 64})
        sent = await browser.post("/ui/logout", data={"csrf": await read_csrf_of(browser)})
        await sign_in(browser, ADMIN_API_KEY)
        as_admin = await browser.get("/ui/sessions")

    assert page.status_code == 200
    assert "Audit" not in text_of(page)
    assert (forged.status_code, sent.status_code) == (403, 303)
    assert "Audit" in text_of(as_admin)


async def read_csrf_of(browser: httpx.AsyncClient) -> str:
    page = await browser.get("/ui/sessions")
    return page.text.partition('"X-CSRF-Token": "')[2].partition('"')[0]
