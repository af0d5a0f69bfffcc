"""The client's credentials: an API key, or a token that is renewed before it expires."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Awaitable, Callable

from shared_context_client._generated.errors import InvalidArgument, RateLimited, Unauthenticated
from shared_context_client._generated.results import Permission, TokenResult
from shared_context_client.errors import ServerUnavailable

RENEWED_BEFORE_S = 300.0  # before its expiry, or a fifth of its life if that is shorter
RETRY_RENEWAL_S = 5.0  # while the old token is still good

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Headers = dict[bytes, bytes]

Trade = Callable[[str, dict[str, object], Headers], Awaitable[TokenResult]]
"""Calls a tool (its name, arguments) with these headers and no others."""


class Credentials:
    """The credentials of one client. For the tasks of one loop.

    One renewal runs at a time. Raises InvalidArgument for characters that a header cannot carry.
    """

    def __init__(
        self,
        api_key: str | None,
        agent_id: str | None,
        agent_type: str | None,
        token: str | None,
        instance: str | None = None,
    ) -> None:
        self._api_key = _read_header("api_key", api_key)
        self._agent_id = _read_header("agent_id", agent_id)
        self._agent_type = _read_header("agent_type", agent_type)
        self._instance = _read_header("instance", instance)
        self._permissions: list[Permission] | None = None
        self._token = _read_header("token", token)
        self._renew_at, self._ends_at = _read_times(self._token)
        self._lock = asyncio.Lock()

    @property
    def are_missing(self) -> bool:
        """Whether requests carry neither a key nor a token."""
        return self._api_key is None and self._token is None

    async def authenticate(
        self, trade: Trade, permissions: list[Permission] | None = None
    ) -> TokenResult:
        """Exchange the key for a token, which is used from now on. Raises Unauthenticated."""
        if self._api_key is None or self._agent_id is None:
            missing = "api_key" if self._api_key is None else "agent_id"
            raise Unauthenticated(
                f"The client has no {missing}.",
                details={"field": missing},
                suggestion=f"Make it with SharedContextClient({missing}=…).",
            )
        async with self._lock:
            self._permissions = permissions
            return await self._trade_key(trade)

    async def get_headers(self, trade: Trade) -> Headers:
        """Return the headers that identify the next request. Renews the token first if it is due."""
        if self._token is None:
            return self._key_headers()
        if time.monotonic() >= self._renew_at:
            await self._renew_in_time(trade)
        return self._token_headers()

    async def renew_refused(self, refused: Headers, trade: Trade) -> bool:
        """After a 401 to these headers: return whether there are newer credentials now."""
        if self._token is None or b"Authorization" not in refused:
            return False
        async with self._lock:
            if self._token_headers() != refused:
                return True  # another call has renewed it
            if self._api_key is None:
                return False
            await self._trade_key(trade)
            return True

    async def _renew_in_time(self, trade: Trade) -> None:
        async with self._lock:
            if time.monotonic() < self._renew_at:
                return
            try:
                if self._api_key is not None:
                    await self._trade_key(trade)
                else:
                    self._keep(await trade("refresh_token", {}, self._token_headers()))
            except (ServerUnavailable, RateLimited):
                if time.monotonic() >= self._ends_at:
                    raise
                self._renew_at = time.monotonic() + RETRY_RENEWAL_S

    async def _trade_key(self, trade: Trade) -> TokenResult:
        arguments: dict[str, object] = {"agent_id": self._agent_id}
        if self._agent_type is not None:
            arguments["agent_type"] = self._agent_type
        if self._permissions is not None:
            arguments["requested_permissions"] = self._permissions
        issued = await trade("authenticate_agent", arguments, self._key_headers())
        self._keep(issued)
        return issued

    def _keep(self, issued: TokenResult) -> None:
        self._token = issued.token
        now = time.monotonic()
        self._ends_at = now + issued.expires_in
        self._renew_at = self._ends_at - _lead_s(issued.expires_in)

    def _key_headers(self) -> Headers:
        named = {
            b"X-API-Key": self._api_key,
            b"X-Agent-ID": self._agent_id,
            b"X-Agent-Type": self._agent_type,
            b"X-Agent-Instance": self._instance,
        }
        # As bytes: names need not be ASCII, and the server reads UTF-8.
        return {name: value.encode() for name, value in named.items() if value is not None}

    def _token_headers(self) -> Headers:
        headers = {b"Authorization": f"Bearer {self._token}".encode()}
        if self._instance is not None:
            headers[b"X-Agent-Instance"] = self._instance.encode()
        return headers


def _read_header(field: str, value: str | None) -> str | None:
    """Return the value without surrounding space, such as a line end from a file. The error does
    not show the value, which may be a secret."""
    value = (value or "").strip()
    try:
        value.encode()
    except UnicodeEncodeError:
        is_sendable = False
    else:
        is_sendable = _CONTROL.search(value) is None
    if not is_sendable:
        raise InvalidArgument(
            f"{field} has a character that an HTTP header cannot carry.", details={"field": field}
        )
    return value or None


def _lead_s(life_s: float) -> float:
    return min(RENEWED_BEFORE_S, life_s / 5)


def _read_times(token: str | None) -> tuple[float, float]:
    """Return when to renew a token and when it expires, in monotonic seconds, from its claims; far
    in the future if they cannot be read."""
    try:
        payload = (token or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        ends_s, issued_s = float(claims["exp"]), float(claims["iat"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return float("inf"), float("inf")
    ends_at = time.monotonic() + ends_s - time.time()
    return ends_at - _lead_s(ends_s - issued_s), ends_at
