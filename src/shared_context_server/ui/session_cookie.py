"""The cookie that keeps a person signed in, and the token that their forms carry.

The cookie holds a token as `authenticate_agent` issues it, so expiry and revocation are those of every
token. Its name contains a hash of the server's secret: browsers send cookies to every port of a host,
and two servers on one machine must not overwrite each other's.
"""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie

from starlette.types import Scope

from shared_context_server.auth.identity import IssuedToken
from shared_context_server.auth.middleware.head import RawHeader, head_of
from shared_context_server.errors import CrossSiteRequest
from shared_context_server.models import Caller

_NAME_PREFIX = "scs_ui_"
_NAME_HEX_CHARS = 8
CSRF_FIELD = "csrf"
CSRF_HEADER = b"x-csrf-token"


class SessionCookie:
    """Reads and writes the cookie of one server, and makes and checks the tokens of forms."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        name = self._sign("cookie name")[:_NAME_HEX_CHARS]
        self.name = _NAME_PREFIX + name

    def read(self, scope: Scope) -> str | None:
        """Return the token in the request's cookie; None without one."""
        return read_cookie(scope, self.name)

    def make_header(self, scope: Scope, root: str, issued: IssuedToken) -> RawHeader:
        """Return the header that sets the cookie for as long as its token is valid."""
        return self._header(scope, root, issued.token, issued.expires_in)

    def clear_header(self, scope: Scope, root: str) -> RawHeader:
        """Return the header that removes the cookie."""
        return self._header(scope, root, "", 0)

    def _header(self, scope: Scope, root: str, value: str, max_age_s: int) -> RawHeader:
        # Lax and not Strict: a link to a session in a chat or a tracker has to open signed in. No GET
        # changes anything, and all other requests need the token of a form.
        parts = [
            f"{self.name}={value}",
            f"Max-Age={max_age_s}",
            f"Path={root}",
            "HttpOnly",
            "SameSite=Lax",
        ]
        if scope.get("scheme") == "https":
            parts.append("Secure")
        return b"set-cookie", "; ".join(parts).encode()

    def make_csrf_token(self, caller: Caller) -> str:
        """Return the token that this caller's forms carry. It ends with the sign-in, and is the same in
        every process."""
        who = caller.family_id or f"{caller.key_id} {caller.agent_id}"
        return self._sign(f"form {who}")

    def require_own_form(self, scope: Scope, caller: Caller, given: str | None) -> None:
        """Raise CrossSiteRequest unless a page of this server, made for this caller, sent the request."""
        require_same_origin(scope)
        presented = head_of(scope).find_text(CSRF_HEADER) or given or ""
        expected = self.make_csrf_token(caller)
        if not hmac.compare_digest(presented.encode(errors="replace"), expected.encode()):
            raise CrossSiteRequest("The request does not carry the token of this page's forms.")

    def _sign(self, text: str) -> str:
        message = b"shared-context-server dashboard\0" + text.encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def read_cookie(scope: Scope, name: str) -> str | None:
    """Return the value of a cookie of the request; None without one."""
    header = head_of(scope).find_text(b"cookie")
    if not header or name not in header:
        return None
    try:
        morsel = SimpleCookie(header.replace(", ", "; ")).get(name)
    except CookieError:
        return None
    return morsel.value if morsel is not None and morsel.value else None


def require_same_origin(scope: Scope) -> None:
    """Raise CrossSiteRequest if the browser says that another site has sent the request.

    HostOriginMiddleware has compared Origin with the server's own, but allows CORS_ORIGINS too, which
    are for scripts that call tools. A client without Origin and Sec-Fetch-Site is no browser.
    """
    head = head_of(scope)
    site = head.headers.get(b"sec-fetch-site", b"same-origin")
    origin = head.find_text(b"origin")
    host = head.find_text(b"host") or ""
    is_own = origin is None or origin.lower() == f"{scope.get('scheme', 'http')}://{host}".lower()
    if site not in (b"same-origin", b"none") or not is_own:
        raise CrossSiteRequest("The request comes from a page of another site.")
