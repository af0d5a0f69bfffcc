"""The cookie that carries a new key from the form that made it to the page that shows it once.

The answer to the form leads to that page, so that neither loading it again nor going back sends the form
a second time. A key in an address would stay in the history. The browser keeps the cookie for a minute at
most, out of reach of scripts, like the cookie of an admin's sign-in, which is worth as much. The page that
shows the key removes it.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.responses import Response

from shared_context_server.ui.page import PageRequest
from shared_context_server.ui.session_cookie import read_cookie

CREATED_PATH = "/keys/created"
MAX_AGE_S = 60
_NAME_HEX_CHARS = 8


def give(page: PageRequest, response: Response, key: str) -> None:
    """Let the answer hand the key to the page that shows it."""
    _set(page, response, f"{key}.{_sign(page, key)}", MAX_AGE_S)


def take(page: PageRequest) -> str | None:
    """Return the key that the browser was handed, for the person who made it; None without one."""
    key, _, signature = (read_cookie(page.scope, _name(page)) or "").rpartition(".")
    is_own = hmac.compare_digest(signature.encode(errors="replace"), _sign(page, key).encode())
    return key if key and is_own else None


def remove(page: PageRequest, response: Response) -> None:
    """Let the browser forget the key."""
    _set(page, response, "", 0)


def _set(page: PageRequest, response: Response, value: str, max_age_s: int) -> None:
    response.set_cookie(
        _name(page),
        value,
        max_age=max_age_s,
        path=page.root + CREATED_PATH,
        secure=page.scope.get("scheme") == "https",
        httponly=True,
        samesite="strict",
    )


def _name(page: PageRequest) -> str:
    """Return the name, another one for each server: browsers send cookies to every port of a host."""
    return "scs_new_key_" + _sign(page, "cookie name")[:_NAME_HEX_CHARS]


def _sign(page: PageRequest, text: str) -> str:
    """Sign for this person with the token of their forms, which no other site knows."""
    return hmac.new(page.csrf_token.encode(), text.encode(), hashlib.sha256).hexdigest()
