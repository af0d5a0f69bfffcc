"""A request for a page of the dashboard: who asks, what was sent, and how the answer is made."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from shared_context_server.auth.connection import Connection
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Caller, Permission
from shared_context_server.services.context import Services
from shared_context_server.tools.dispatch import Dispatcher
from shared_context_server.ui.navigation import NAVIGATION, find_section
from shared_context_server.ui.paths import SIGN_IN, root_of
from shared_context_server.ui.problems import CallFailed
from shared_context_server.ui.templates import Assets

MAX_FORM_FIELDS = 100
COMPONENTS = "components.html"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request with what its page needs. `form` is the body of a POST, by field, without the token.
    `connection` identifies the caller for tools that the page calls."""

    request: Request
    services: Services
    dispatcher: Dispatcher
    assets: Assets
    connection: Connection
    csrf_token: str
    is_signed_in: bool
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def caller(self) -> Caller:
        return self.connection.caller

    @property
    def scope(self) -> Scope:
        return self.request.scope

    @property
    def root(self) -> str:
        """The address of the dashboard, usually /ui."""
        return root_of(self.scope)

    @property
    def current(self) -> str:
        """The address that was asked for, with its parameters."""
        query = self.request.url.query
        return str(self.scope["path"]) + (f"?{query}" if query else "")

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters in the address; of a repeated one the last."""
        return self.request.query_params

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks for a part of the page, which is not a navigation back in the history."""
        headers = self.request.headers
        return "hx-request" in headers and "hx-history-restore-request" not in headers

    def path_param(self, name: str) -> str:
        """Return a part of the address that the route names."""
        return str(self.scope["path_params"][name])

    def address(self, path: str, **query: object) -> str:
        """Return the address of a page: of `path` below the dashboard, with those parameters that are
        neither None nor empty."""
        given = {name: str(value) for name, value in query.items() if value not in (None, "")}
        return self.root + path + (f"?{urlencode(given)}" if given else "")

    def render(self, template: str, /, *, status_code: int = 200, **context: Any) -> Response:
        """Answer with a template."""
        return Response(self.render_text(template, **context), status_code, media_type=HTML)

    def render_text(self, template: str, /, **context: Any) -> str:
        """Return a rendered template, or a part of one, as text."""
        is_admin = self.caller.is_admin
        shared = {
            "root": self.root,
            "address": self.address,
            "person": self.caller,
            "csrf_token": self.csrf_token,
            "is_signed_in": self.is_signed_in,
            "sections": [item for item in NAVIGATION if not item.is_for_admins or is_admin],
            "section": find_section(self.scope["path"].removeprefix(self.root)),
            "here": self.scope["path"],
            "current": self.current,
            "sign_in_path": SIGN_IN,
        }
        parts = self.assets.templates[COMPONENTS].make_module(shared)
        return self.assets.templates[template].render(shared, ui=parts, **context)

    def redirect(self, address: str) -> Response:
        """Lead the browser to another page, which it asks for with GET."""
        name = "HX-Redirect" if self.is_fragment else "Location"
        return Response(status_code=200 if self.is_fragment else 303, headers={name: address})

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool as the person who is signed in, with all its checks, limits and metrics. None is
        left out. Raises CallFailed."""
        given = {name: value for name, value in arguments.items() if value is not None}
        outcome = await self.dispatcher.call(tool, given, self.connection)
        body: dict[str, Any] = json.loads(outcome.json())
        if outcome.is_error:
            raise CallFailed(outcome.status, body, outcome.retry_after_s)
        return body


Handler = Callable[[PageRequest], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """An address of the dashboard and what answers GET and POST on it.

    `permission`: what the caller needs for it; None for pages that strangers see too. A POST needs the
    token of the caller's forms, unless `is_open_to_forms`.
    """

    path: str
    get: Handler | None = None
    post: Handler | None = None
    permission: Permission | None = Permission.READ
    is_open_to_forms: bool = False

    @property
    def methods(self) -> list[str]:
        named = (("GET", self.get), ("HEAD", self.get), ("POST", self.post))
        return [name for name, handler in named if handler is not None]

    def find_handler(self, method: str) -> Handler | None:
        return self.post if method == "POST" else self.get if method in ("GET", "HEAD") else None


def parse_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form; of a repeated field the last. Raises InvalidArgument."""
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            max_num_fields=MAX_FORM_FIELDS,
            errors="strict",
        )
    except ValueError as exc:
        raise InvalidArgument("The form is not valid.", field="body") from exc
    return dict(pairs)
