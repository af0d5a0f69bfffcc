"""Sign in with a key or with a one-time link, and sign out."""

from __future__ import annotations

from starlette.responses import Response

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import IssuedToken
from shared_context_server.auth.sign_in_links import redeem_code
from shared_context_server.errors import SharedContextError, Unauthenticated
from shared_context_server.models import Permission
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.paths import SIGN_IN, local_address
from shared_context_server.ui.problems import Problem
from shared_context_server.ui.session_cookie import SessionCookie

DEFAULT_AGENT_ID = "overseer"
AGENT_TYPE = "human"
MAX_KEY_CHARS = 512
SIGN_OUT = "/logout"


class SignIn:
    """The pages for signing in and out, with the cookie that they set."""

    def __init__(self, cookie: SessionCookie) -> None:
        self._cookie = cookie

    @property
    def pages(self) -> tuple[Page, ...]:
        return (
            Page(SIGN_IN, self.show, self.sign_in, permission=None, is_open_to_forms=True),
            Page(SIGN_OUT, None, self.sign_out, permission=None),
        )

    async def show(self, page: PageRequest) -> Response:
        """The form; with a code in the address a sign-in by link.

        A person who opens the link from a terminal is signed in at once: browsers then send
        Sec-Fetch-Site: none. What only looks at a link (previews, scanners, prefetching), and links on
        other sites, get a page with a button, so that nothing uses the code up or signs a person in as
        somebody else.
        """
        code = page.query.get("code")
        if code and _is_opened_by_person(page):
            return await self._redeem(page, code)
        return _show_form(page, code=code)

    async def sign_in(self, page: PageRequest) -> Response:
        """Sign in with the link's code, or with a key."""
        code = page.form.get("code")
        if code:
            return await self._redeem(page, code)
        agent_id = page.form.get("agent_id", "").strip()
        try:
            issued = await _trade_key(page, page.form.get("api_key", "").strip(), agent_id)
        except SharedContextError as exc:
            return _refuse(page, exc, agent_id=agent_id)
        return self._enter(page, issued)

    async def sign_out(self, page: PageRequest) -> Response:
        """Revoke the token of the cookie in every process, and remove the cookie."""
        if page.is_signed_in:
            await page.services.identity.revoke(page.caller, None)
        response = page.redirect(page.address(SIGN_IN))
        response.raw_headers.append(self._cookie.clear_header(page.scope, page.root))
        return response

    async def _redeem(self, page: PageRequest, code: str) -> Response:
        """Sign in with the code of a link. One that is used up leads on whoever is signed in."""
        services = page.services
        anonymous = Connection(address=page.connection.address)
        try:
            issued = await redeem_code(services.store, services.identity, code, anonymous)
        except SharedContextError as exc:
            refused = _refuse(page, exc)
            if page.is_signed_in and isinstance(exc, Unauthenticated):
                return page.redirect(_find_wanted(page))
            return refused
        return self._enter(page, issued)

    def _enter(self, page: PageRequest, issued: IssuedToken) -> Response:
        response = page.redirect(_find_wanted(page))
        response.raw_headers.append(self._cookie.make_header(page.scope, page.root, issued))
        return response


def _find_wanted(page: PageRequest) -> str:
    """Return the address that a sign-in leads to."""
    wanted = page.form.get("next") or page.query.get("next") or page.root
    return local_address(wanted, page.root)


async def _trade_key(page: PageRequest, key: str, agent_id: str) -> IssuedToken:
    """Issue a token for the holder of a key. Without an agent id it is the one that the key is bound to,
    else the overseer."""
    identity = page.services.identity
    if not key or len(key) > MAX_KEY_CHARS:
        raise Unauthenticated("Enter a key.", field="api_key")
    connection = await identity.authenticate_headers(
        authorization=None,
        api_key=key,
        agent_id=agent_id or None,
        agent_type=None,
        address=page.connection.address,
        fields=("agent_id", "agent_type"),
    )
    if connection.refused is not None:
        raise connection.refused
    if connection.grant is None:
        raise Unauthenticated("The API key is not valid.", field="api_key")
    grant = connection.grant
    return await identity.authenticate(
        connection=connection,
        agent_id=agent_id or grant.agent_id or DEFAULT_AGENT_ID,
        agent_type=grant.agent_type or AGENT_TYPE,
        api_key=key,
        requested_permissions=list(Permission),
    )


def _refuse(page: PageRequest, error: SharedContextError, agent_id: str = "") -> Response:
    """Show the form again with the error. A wrong credential counts for the limit of failed ones."""
    if isinstance(error, Unauthenticated):
        try:
            page.services.limits.count_failure(page.connection.address)
        except SharedContextError as limited:
            error = limited
    problem = Problem.of(error)
    response = _show_form(page, problem=problem, agent_id=agent_id)
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    return response


def _show_form(
    page: PageRequest,
    *,
    code: str | None = None,
    problem: Problem | None = None,
    agent_id: str = "",
) -> Response:
    wanted = page.form.get("next") or page.query.get("next") or ""
    return page.render(
        "sign_in.html",
        # Scripts put the form in the place of the one that was sent.
        status_code=200 if problem is None or page.is_fragment else problem.status,
        code=code,
        problem=problem,
        agent_id=agent_id,
        next=local_address(wanted, page.root) if wanted else "",
        is_auth_enabled=page.services.settings.auth_enabled,
    )


def _is_opened_by_person(page: PageRequest) -> bool:
    headers = page.request.headers
    return (
        headers.get("sec-fetch-site") == "none"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-user") == "?1"
        and "sec-purpose" not in headers
        and page.request.method == "GET"
    )
