"""ASGI middleware for authentication, limits and request checks. `protect` puts it in order."""

from __future__ import annotations

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from shared_context_server.auth.identity import Identity
from shared_context_server.auth.limits import RateLimits
from shared_context_server.auth.middleware.body_limit import BodyLimitMiddleware
from shared_context_server.auth.middleware.caller import IdentityMiddleware, current_connection
from shared_context_server.auth.middleware.head import HeadMiddleware
from shared_context_server.auth.middleware.host_origin import HostOriginMiddleware
from shared_context_server.auth.middleware.mcp_errors import McpErrorMiddleware
from shared_context_server.settings import Settings

__all__ = [
    "BodyLimitMiddleware",
    "HeadMiddleware",
    "HostOriginMiddleware",
    "IdentityMiddleware",
    "McpErrorMiddleware",
    "current_connection",
    "protect",
]

_CORS_MAX_AGE_S = 600
_EXPOSED_HEADERS = (
    "Mcp-Session-Id",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
    "X-Unread-Mentions",
)


def protect(
    app: ASGIApp,
    *,
    settings: Settings,
    identity: Identity,
    public_paths: Collection[str],
    limits: RateLimits | None = None,
) -> ASGIApp:
    """Wrap the app in all middleware. From the outside in: the head is normalized first; errors on /mcp
    become JSON-RPC; Host and Origin are checked; CORS headers are added, also to the errors of the
    inner layers, so that an allowed page can read them; then the body limit and the caller."""
    limits = limits or RateLimits(settings)
    app = IdentityMiddleware(
        app,
        identity,
        limits=limits,
        public_paths=public_paths,
        max_body_bytes=settings.max_body_bytes,
    )
    app = BodyLimitMiddleware(app, settings.max_body_bytes, limits.note_limited)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=_EXPOSED_HEADERS,
            max_age=_CORS_MAX_AGE_S,
        )
    app = HostOriginMiddleware(
        app,
        allowed_hosts=settings.allowed_hosts,
        allowed_origins=settings.cors_origins,
        is_json_required=not settings.auth_enabled,
    )
    app = McpErrorMiddleware(app, settings.max_body_bytes)
    return HeadMiddleware(app)
