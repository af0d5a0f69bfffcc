"""Addresses of the dashboard, and which of them a sign-in may lead back to."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.types import Scope

from shared_context_server.auth.middleware.paths import UI_PATH

SIGN_IN = "/login"
MAX_NEXT_CHARS = 2000

# Browsers drop tabs and line ends in addresses, and read a backslash as a slash.
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")


def is_ui_path(scope: Scope) -> bool:
    """Whether the request is for the dashboard."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == UI_PATH or path.startswith(UI_PATH + "/")


def root_of(scope: Scope) -> str:
    """Return the address of the dashboard as the browser has to ask for it."""
    return str(scope.get("root_path", "")).rstrip("/") + UI_PATH


def local_address(address: str, root: str) -> str:
    """Return the address if it is one of the dashboard, else that of the first page: nobody shall be
    led to another site by a link to this one."""
    if len(address) > MAX_NEXT_CHARS or _UNSAFE.search(address):
        return root
    try:
        parts = urlsplit(address)
    except ValueError:
        return root
    is_within = parts.path == root or parts.path.startswith(root + "/")
    if parts.scheme or parts.netloc or not is_within or "/.." in parts.path:
        return root
    return address
