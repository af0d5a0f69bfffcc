"""What all pages of the dashboard promise: headers, forms, errors, static files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx
import pytest

from shared_context_server import ui
from shared_context_server.server import Server, open_server
from shared_context_server.ui.headers import CONTENT_SECURITY_POLICY, SECURITY_HEADERS
from shared_context_server.ui.page import Page
from shared_context_server.ui.routes import PAGES
from shared_context_server.ui.session_cookie import SessionCookie
from shared_context_server.ui.sign_in import SignIn
from tests.rest.conftest import BASE_URL, call, client_of
from tests.settings import ADMIN_API_KEY, API_KEY, make_settings
from tests.ui.conftest import browser_of, read_csrf, text_of

STATIC = Path(ui.__file__).parent / "static"
TEMPLATES = Path(ui.__file__).parent / "templates"
ALL_PAGES = (*PAGES, *SignIn(SessionCookie(b"x")).pages)
FORMS = [page for page in ALL_PAGES if page.post is not None and not page.is_open_to_forms]
PLACEHOLDERS = re.compile(r"\{\w+(:\w+)?\}")


def fill(page: Page) -> str:
    return "/ui" + PLACEHOLDERS.sub("session_0123456789abcdef", page.path)


def assert_protected(response: httpx.Response) -> None:
    for name, value in SECURITY_HEADERS:
        assert response.headers.get(name.decode()) == value.decode(), (response.url, name)
    assert response.headers["cache-control"] == "no-store"


async def test_every_answer_has_the_security_headers(
    visitor: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    for page in ALL_PAGES:
        address = fill(page)
        is_stream = "/events/" in address and "session_0" not in address
        for browser in (visitor,) if is_stream else (visitor, overseer):
            for method in ("GET", "POST", "DELETE"):
                response = await browser.request(method, address)
                assert_protected(response)
                assert response.status_code < 500, (method, address)


async def test_answers_of_the_middleware_have_them_too(visitor: httpx.AsyncClient) -> None:
    for headers in ({"Host": "elsewhere.example"}, {"Origin": "https://elsewhere.example"}):
        refused = await visitor.get("/ui", headers=headers)
        assert refused.status_code in (403, 421)
        assert_protected(refused)
    assert_protected(await visitor.get("/ui/no/such/page"))


def test_the_policy_allows_no_inline_script_or_style() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    for template in TEMPLATES.glob("*.html"):
        text = template.read_text()
        assert re.search(r"\s(style|on[a-z]+|hx-on\S*)=", text) is None, template.name
        assert re.search(r"<script(?![^>]* src=)|<style|javascript:|https?://(?!\{)", text) is None


async def test_a_form_of_another_page_is_refused(overseer: httpx.AsyncClient) -> None:
    token = await read_csrf(overseer)
    wrong: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"csrf": "f" * 64}, {}),
        ({"csrf": token}, {"Sec-Fetch-Site": "cross-site"}),
        ({"csrf": token}, {"Sec-Fetch-Site": "same-site"}),
        ({}, {"X-CSRF-Token": "f" * 64}),
    ]

    for page in FORMS:
        for fields, headers in wrong:
            answer = await overseer.post(fill(page), data=fields, headers=headers)
            assert answer.status_code == 403, (page.path, fields)
            assert "CROSS_SITE_REQUEST" in answer.text


async def test_an_origin_that_may_call_tools_may_not_send_forms(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, cors_origins=["https://dev.example"])
    async with open_server(settings) as server, browser_of(server) as browser:
        from_there = await browser.post(
            "/ui/login", data={"api_key": API_KEY}, headers={"Origin": "https://dev.example"}
        )
        own = await browser.post(
            "/ui/login", data={"api_key": API_KEY}, headers={"Origin": "http://127.0.0.1:23456"}
        )

    assert (from_there.status_code, own.status_code) == (403, 303)
    assert "CROSS_SITE_REQUEST" in from_there.text


async def test_errors_are_pages_that_say_what_to_do(
    overseer: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    missing = await overseer.get("/ui/no/such/page")
    wrong_method = await overseer.post("/ui/sessions", data={"csrf": await read_csrf(overseer)})
    wrong_cursor = await overseer.get("/ui/sessions?cursor=nonsense")
    part = await visitor.get("/ui/sessions", headers={"HX-Request": "true"})

    assert (missing.status_code, wrong_method.status_code) == (404, 405)
    assert wrong_cursor.status_code == 400
    for answer in (missing, wrong_method, wrong_cursor):
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        what = "Open the page without filters" if answer is wrong_cursor else "Go to the first page"
        assert what in text_of(answer)
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/ui/login")


@pytest.mark.parametrize(
    "where, field",
    [
        ("/ui?activity=zzz", "activity"),
        ("/ui/sessions?status=zzz", "status"),
        ("/ui/search?sort=zzz", "sort"),
        ("/ui/search?q=x&within=zzz", "within"),
        ("/ui/memory?scope=zzz", "scope"),
        ("/ui/sessions/{}?visibility=zzz", "visibility"),
        ("/ui/sessions/{}?before=-1", "before"),
        ("/ui/sessions/{}?span=zzz", "span"),
        ("/ui/tasks?session_id={}&state=zzz", "state"),
    ],
)
async def test_a_wrong_parameter_is_named_with_a_link_to_the_page_without_it(
    where: str, field: str, agent: httpx.AsyncClient, overseer: httpx.AsyncClient
) -> None:
    session = await call(agent, "create_session", purpose="Filtered")
    address = where.format(session["session_id"])
    answer = await overseer.get(address)
    assert answer.status_code == 400
    assert f"{field} must be" in text_of(answer)
    assert "Correct it in the form or in the address." in text_of(answer)
    link = f'href="{address.partition("?")[0]}">Open the page without filters'
    assert link in answer.text


async def test_a_part_that_is_asked_for_signed_out_leads_back_to_its_page(
    visitor: httpx.AsyncClient,
) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": f"{BASE_URL}/ui/tasks?session_id=s_1"}
    answer = await visitor.get("/ui/tasks?session_id=s_1", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/ui/login?next=%2Fui%2Ftasks%3Fsession_id%3Ds_1"
    headers["HX-Current-URL"] = "https://evil.example//evil.example/x"
    answer = await visitor.get("/ui/tasks", headers=headers)
    assert answer.headers["hx-redirect"] == "/ui/login"


async def test_static_files_are_immutable_and_nothing_else_is_served(
    visitor: httpx.AsyncClient,
) -> None:
    page = (await visitor.get("/ui/login")).text
    addresses = re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', page)
    assert len(addresses) == 4

    for address in addresses:
        answer = await visitor.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == (STATIC / address.rpartition("/")[2]).read_bytes()
    other_version = await visitor.get("/ui/static/0000000000000000/ui.js")
    assert other_version.headers["cache-control"] == "no-store"
    for name in ("SHA256SUMS", "..%2fheaders.py", "%2e%2e/headers.py", "", "ui.js/", "../ui.js"):
        hidden = await visitor.get(f"/ui/static/0/{name}")
        assert hidden.status_code in (404, 200)
        assert b"def " not in hidden.content
        assert hidden.status_code == 404 or name == "ui.js/"


def test_vendored_files_are_those_that_were_checked() -> None:
    sums = (STATIC / "SHA256SUMS").read_text().split()
    vendored = dict(zip(sums[1::2], sums[::2], strict=True))

    assert set(vendored) == {"htmx.min.js", "htmx.LICENSE.txt"}
    for name, digest in vendored.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest


async def test_a_program_with_a_key_in_its_headers_reads_pages(server: Server) -> None:
    async with client_of(server, X_API_Key=ADMIN_API_KEY) as program:
        assert (await program.get("/ui/sessions")).status_code == 200
    async with client_of(server, X_API_Key="wrong") as program:
        refused = await program.get("/ui/sessions")
    assert refused.status_code == 401
    assert_protected(refused)
