"""The async client: every tool of the server as a coroutine method."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from shared_context_client._generated.results import Permission, TokenResult
from shared_context_client._generated.tools import AsyncTools
from shared_context_client.answers import read_result
from shared_context_client.batches import Batch
from shared_context_client.circuit_breaker import CircuitBreaker, OnStateChange, State
from shared_context_client.connection import TOOL_PATH, Connection
from shared_context_client.credentials import Credentials
from shared_context_client.leases import HeldLease, hold_lease
from shared_context_client.options import Breaker, Limits, Retries, read_api_key, read_url
from shared_context_client.outbox import Outbox
from shared_context_client.session import Memory, Session
from shared_context_client.wire import Call, R, encode_json


class SharedContextClient(AsyncTools):
    """Every tool of the server as a typed coroutine method, over one connection pool.

    For the tasks of one event loop. `url` and `api_key` default to SCS_URL and SCS_API_KEY;
    `token` is used instead of a key. `instance` names this one of several that share an agent id. Failures are SharedContextError and its subclasses.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        agent_id: str | None = None,
        agent_type: str | None = None,
        instance: str | None = None,
        token: str | None = None,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        breaker: Breaker = Breaker(),  # noqa: B008
        limits: Limits = Limits(),  # noqa: B008
        verify: ssl.SSLContext | bool = True,
        on_state_change: OnStateChange | None = None,
    ) -> None:
        self.url = read_url(url)
        self.agent_id = agent_id
        key = api_key if token is not None else read_api_key(api_key)
        self._breaker = CircuitBreaker(breaker, on_state_change)
        self._connection = Connection(
            self.url,
            Credentials(key, agent_id, agent_type, token, instance),
            self._breaker,
            retries,
            limits,
            verify,
        )
        self.memory = Memory(self, None)
        """Memory that belongs to no session."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, agent_id={self.agent_id!r})"

    async def __aenter__(self) -> SharedContextClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. The client cannot be used afterwards."""
        await self._connection.close()

    @property
    def state(self) -> State:
        """The state of the circuit breaker. OPEN: calls fail at once with CircuitOpen."""
        return self._breaker.state

    async def authenticate(self, *, permissions: Sequence[Permission] | None = None) -> TokenResult:
        """Exchange the key for a token, which all calls use from now on. The token is renewed
        automatically.

        Needs api_key and agent_id. Raises Unauthenticated when the key is not valid.
        """
        return await self._connection.authenticate(
            None if permissions is None else list(permissions)
        )

    def take_unread(self) -> dict[str, Any] | None:
        """Return what the server last told of unread mentions of this agent, once: `count`, and
        `sessions` with `session_id`, `count`, `first_seq` and `newest_seq`. None if it told nothing
        since. Sends nothing."""
        return self._connection.take_unread()

    def session(self, session_id: str) -> Session:
        """Return a handle for one session. Sends nothing."""
        return Session(self, self._connection, session_id)

    def lease(
        self,
        name: str,
        *,
        ttl_seconds: int = 60,
        wait_seconds: float = 0,
        paths: Sequence[str] | None = None,
    ) -> AbstractAsyncContextManager[HeldLease]:
        """Hold a server-wide lease for an `async with` block. See Session.lease."""
        return hold_lease(
            self,
            name,
            session_id=None,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
            paths=paths,
        )

    def batch(self) -> Batch:
        """Make a batch: `async with client.batch() as batch:` collects calls and sends them at the
        end."""
        return Batch(self._connection)

    def outbox(self, *, max_writes: int = 1000, drain_s: float = 5.0) -> Outbox:
        """Make an outbox: `async with client.outbox() as outbox:` accepts writes even while the
        server is away."""
        return Outbox(self._connection, max_writes=max_writes, drain_s=drain_s)

    async def _call(self, call: Call[R]) -> R:
        content = await self._connection.post(
            TOOL_PATH + call.tool.name,
            encode_json(call.arguments),
            may_repeat=call.tool.may_repeat,
            waiting_s=call.tool.waiting_s(call.arguments),
        )
        return read_result(content, call.result)
