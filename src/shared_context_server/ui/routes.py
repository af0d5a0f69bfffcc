"""The list of the dashboard's routes, for Starlette."""

from __future__ import annotations

from starlette.routing import Route, Router

from shared_context_server.auth.middleware.paths import UI_PATH
from shared_context_server.services.context import Services
from shared_context_server.tools.dispatch import Dispatcher
from shared_context_server.ui import (
    audit,
    clock,
    fleet,
    keys,
    leases,
    memory,
    memory_editing,
    search,
    server,
    session,
    session_actions,
    sessions,
    tasks,
)
from shared_context_server.ui.endpoint import Dashboard, PageEndpoint, StaticEndpoint, show_missing
from shared_context_server.ui.page import Page
from shared_context_server.ui.session_cookie import SessionCookie
from shared_context_server.ui.sign_in import SignIn
from shared_context_server.ui.static_files import STATIC_PATH
from shared_context_server.ui.templates import LateAssets

PAGES: tuple[Page, ...] = (
    *fleet.PAGES,
    *sessions.PAGES,
    *session.PAGES,
    *session_actions.PAGES,
    *search.PAGES,
    *tasks.PAGES,
    *memory.PAGES,
    *memory_editing.PAGES,
    *leases.PAGES,
    *audit.PAGES,
    *clock.PAGES,
    *server.PAGES,
    *keys.PAGES,
)
"""All pages but those for signing in and out. Paths are relative to /ui; "" is the first page."""

MISSING = Page("/{rest:path}", show_missing, show_missing, permission=None, is_open_to_forms=True)


def make_ui_app(dispatcher: Dispatcher) -> Router:
    """Return the app with all pages of one server."""
    dashboard = make_dashboard(dispatcher)
    pages = (*PAGES, *SignIn(dashboard.cookie).pages, MISSING)
    routes = [
        Route(UI_PATH + STATIC_PATH, StaticEndpoint(dashboard)),
        *(Route(UI_PATH + page.path, PageEndpoint(dashboard, page)) for page in pages),
    ]
    return Router(routes, redirect_slashes=False)


def make_dashboard(dispatcher: Dispatcher) -> Dashboard:
    """Return what the pages of one server share."""
    services: Services = dispatcher.services
    assert services.settings.jwt_secret_key is not None  # Identity requires it
    secret = services.settings.jwt_secret_key.get_secret_value().encode()
    return Dashboard(services, dispatcher, SessionCookie(secret), LateAssets())
