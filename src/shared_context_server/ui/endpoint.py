"""Serve the pages of the dashboard: identify the caller, check forms, answer errors as pages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from shared_context_server import policy
from shared_context_server.auth.connection import Connection
from shared_context_server.auth.instances import name_instance
from shared_context_server.auth.middleware import current_connection
from shared_context_server.auth.middleware.bodies import Unread, read_body
from shared_context_server.errors import (
    InternalError,
    InvalidArgument,
    MethodNotAllowed,
    RouteNotFound,
    SharedContextError,
    Unauthenticated,
)
from shared_context_server.models import ANONYMOUS
from shared_context_server.observability.logs import get_logger
from shared_context_server.observability.request_ids import name_request
from shared_context_server.services.context import Services
from shared_context_server.tools.dispatch import Dispatcher
from shared_context_server.ui.page import Page, PageRequest, parse_form
from shared_context_server.ui.paths import MAX_NEXT_CHARS, SIGN_IN, local_address, root_of
from shared_context_server.ui.problems import CallFailed, Problem
from shared_context_server.ui.session_cookie import CSRF_FIELD, SessionCookie, require_same_origin
from shared_context_server.ui.static_files import send_static
from shared_context_server.ui.templates import LateAssets

INSTANCE = "dashboard"
"""The instance of callers who are signed in: what a person does with an agent's key is told apart from
what the agent does."""

_log = get_logger("ui")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What all pages of one server share."""

    services: Services
    dispatcher: Dispatcher
    cookie: SessionCookie
    assets: LateAssets

    async def identify(self, scope: Scope) -> tuple[Connection, bool]:
        """Return the connection of the person, and whether a cookie identified it. Without a valid
        cookie it is that of the request's headers: with AUTH_ENABLED=false everyone's, else that of a
        program which sends a credential, or an anonymous one."""
        own = current_connection.get()
        token = self.cookie.read(scope)
        if token is None or (own.is_named and not own.caller.is_anonymous):
            return name_instance(own, INSTANCE), False
        connection = await self.services.identity.authenticate_headers(
            authorization=f"Bearer {token}",
            api_key=None,
            agent_id=None,
            agent_type=None,
            address=own.address,
        )
        if connection.refused is not None:
            return own, False
        return name_instance(connection, INSTANCE), True


class PageEndpoint:
    """An ASGI app that serves one address of the dashboard."""

    def __init__(self, dashboard: Dashboard, page: Page) -> None:
        self._dashboard = dashboard
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def note_start(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        page_request = await self._begin(scope)
        try:
            response = await self._answer(page_request, receive)
            await response(scope, receive, note_start)
        except SharedContextError as exc:
            problem = Problem.of(exc)
            if is_started:
                raise
        except CallFailed as exc:
            problem = exc.problem
        except Exception:
            if is_started:
                raise
            _log.exception("page failed", path=self._page.path)
            problem = Problem.of(name_request(InternalError("The server failed at this page.")))
        else:
            return
        await answer_problem(page_request, problem)(scope, receive, send)

    async def _begin(self, scope: Scope) -> PageRequest:
        dashboard = self._dashboard
        assets = await dashboard.assets.get()
        try:
            connection, is_signed_in = await dashboard.identify(scope)
        except SharedContextError as exc:  # the storage does not answer: `_answer` raises it
            address = current_connection.get().address
            connection, is_signed_in = Connection(refused=exc, address=address), False
        caller = connection.caller
        return PageRequest(
            request=Request(scope),
            services=dashboard.services,
            dispatcher=dashboard.dispatcher,
            assets=assets,
            connection=connection,
            csrf_token="" if caller == ANONYMOUS else dashboard.cookie.make_csrf_token(caller),
            is_signed_in=is_signed_in,
        )

    async def _answer(self, page: PageRequest, receive: Receive) -> Response:
        method = page.request.method
        handler = self._page.find_handler(method)
        if handler is None:
            raise MethodNotAllowed(method, page.scope["path"][:200], self._page.methods)
        if self._page.permission is not None:
            if page.connection.refused is not None:
                raise page.connection.refused
            if page.caller.is_anonymous:
                return lead_to_sign_in(page)
            policy.require_permission(page.caller, self._page.permission)
        if method == "POST":
            form = await self._read_form(page, receive)
            page = replace(page, form=form)
        return await handler(page)

    async def _read_form(self, page: PageRequest, receive: Receive) -> dict[str, str]:
        """Return the fields of the form. Raises CrossSiteRequest unless a page of ours has sent it."""
        body = await read_body(receive, page.services.settings.max_body_bytes)
        if isinstance(body, Unread):
            raise InvalidArgument("The form did not arrive.", field="body")
        form = parse_form(body)
        token = form.pop(CSRF_FIELD, None)
        if self._page.is_open_to_forms:
            require_same_origin(page.scope)
        else:
            self._dashboard.cookie.require_own_form(page.scope, page.caller, token)
        return form


def lead_to_sign_in(page: PageRequest) -> Response:
    """Answer an anonymous visitor: a navigation leads to the sign-in and back to this page."""
    root = root_of(page.scope)
    is_stream = "text/event-stream" in page.request.headers.get("accept", "")
    if page.request.method in ("GET", "HEAD") and not page.is_fragment and not is_stream:
        is_first = page.current == root
        where = page.address(SIGN_IN) if is_first else page.address(SIGN_IN, next=page.current)
        return page.redirect(where)
    error = Unauthenticated("You are signed out.")
    response = answer_problem(page, Problem.of(error))
    response.headers["HX-Redirect"] = page.address(SIGN_IN, next=_find_shown(page))
    return response


def _find_shown(page: PageRequest) -> str | None:
    """Return the address of the page that a script of ours has asked from; None if it is the first."""
    parts = urlsplit(page.request.headers.get("hx-current-url", "")[:MAX_NEXT_CHARS])
    shown = parts.path + (f"?{parts.query}" if parts.query else "")
    address = local_address(shown, root_of(page.scope))
    return None if address == root_of(page.scope) else address


def answer_problem(page: PageRequest, problem: Problem) -> Response:
    """Answer with the error: as a page, or as a part of one for htmx."""
    template = "problem_fragment.html" if page.is_fragment else "problem.html"
    response = page.render(template, status_code=problem.status, problem=problem)
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    return response


class StaticEndpoint:
    """An ASGI app that serves the static files."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assets = await self._dashboard.assets.get()
        await send_static(assets.files, scope, receive, send)


async def show_missing(page: PageRequest) -> Response:
    """Answer for every address without a page."""
    raise RouteNotFound(page.scope["path"][:200])
