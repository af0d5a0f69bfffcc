"""The connection pool to one server, with credentials, retries and a circuit breaker."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from shared_context_client._generated import registry
from shared_context_client._generated.errors import Unauthenticated
from shared_context_client._generated.results import Permission, TokenResult
from shared_context_client.answers import (
    error_of,
    error_of_network,
    is_away,
    is_worth_repeating,
    read_result,
)
from shared_context_client.circuit_breaker import PROBE_S, CircuitBreaker
from shared_context_client.credentials import Credentials, Headers
from shared_context_client.errors import (
    CircuitOpen,
    ServerUnavailable,
    SharedContextError,
    UnexpectedAnswer,
)
from shared_context_client.options import Limits, Retries, direct_mounts
from shared_context_client.request_tasks import RequestTasks
from shared_context_client.wire import JsonObject, encode_json

TOOL_PATH = "/mcp/tool/"
UNREAD_HEADER = "X-Unread-Mentions"
_TOOLS = {tool.name: tool for tool in registry.TOOLS}
# Servers close idle connections after 5 s or more. We close ours earlier, because a request
# that meets the closing may or may not have been read.
KEEP_ALIVE_S = 3.0
NO_CREDENTIAL = (
    "Pass api_key= or token= to the client, or set SCS_API_KEY: `scs client-config env`, beside the "
    "server, prints it."
)
LEAST_ANSWER_S = 0.5  # the least that the last attempt gets, however near the deadline is


class CredentialEnded(Exception):
    """An event stream has ended, since the credential that opened it is not valid any more."""


class Connection:
    """The connection pool to one server. For the tasks of one loop."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        breaker: CircuitBreaker,
        retries: Retries,
        limits: Limits,
        verify: ssl.SSLContext | bool,
    ) -> None:
        self._credentials = credentials
        self._breaker = breaker
        self.are_streams_usable = True
        self._unread: str | None = None
        self._streams = 0
        self._retries = retries
        self.limits = limits
        self._http = httpx.AsyncClient(
            base_url=url,
            verify=verify,
            mounts=direct_mounts(url),
            headers={"Accept": "application/json", "Content-Type": "application/json"},
            limits=httpx.Limits(
                max_connections=limits.max_connections,
                max_keepalive_connections=limits.max_connections,
                keepalive_expiry=KEEP_ALIVE_S,
            ),
        )
        self._requests = RequestTasks(self._http)

    async def close(self) -> None:
        await self._requests.close()

    def take_unread(self) -> JsonObject | None:
        """See SharedContextClient.take_unread."""
        unread, self._unread = self._unread, None
        found: JsonObject | None = None if unread is None else json.loads(unread)
        return found

    async def authenticate(self, permissions: list[Permission] | None) -> TokenResult:
        """Exchange the key for a token, which is used from now on."""
        return await self._credentials.authenticate(self._trade, permissions)

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        may_repeat: bool,
        waiting_s: float = 0.0,
        headers: Headers | None = None,
    ) -> bytes:
        """Return the body of an answer 200. Raises the error of any other answer, and of none.

        Retries where that may help and does no harm. `waiting_s`: how much longer the server may
        take. `headers`: used instead of the client's own credentials. CircuitOpen says that the
        call was not sent; a call that was raises the failure it met itself.
        """
        deadline = time.monotonic() + self._retries.deadline_s + waiting_s
        answer_s = self.limits.answer_s + waiting_s
        attempt = 0
        is_outcome_unknown = False
        met: SharedContextError | None = None
        while True:
            try:
                return await self._try(path, body, headers, answer_s)
            except SharedContextError as exc:
                if met is None or not isinstance(exc, CircuitOpen):
                    met = exc
                is_outcome_unknown |= exc.is_outcome_unknown
                met.is_outcome_unknown = is_outcome_unknown
                pause_s = self.pause_s(attempt, exc.retry_after_s)
                # A call in progress when the circuit opens may wait; a new one fails at once.
                if (
                    (attempt == 0 and isinstance(exc, CircuitOpen))
                    or self._retries.deadline_s == 0
                    or not is_worth_repeating(exc, may_repeat=may_repeat)
                    or time.monotonic() + pause_s > deadline
                ):
                    raise met from met.__cause__
            await asyncio.sleep(pause_s)
            answer_s = min(answer_s, max(deadline - time.monotonic(), LEAST_ANSWER_S))
            attempt += 1

    def pause_s(self, attempt: int, retry_after_s: float | None = None) -> float:
        """Return an exponential pause with full jitter, so that clients that failed together come
        back apart. It is at least what the server asked for."""
        longest = self._retries.longest_pause_s
        bound = min(longest, self._retries.first_pause_s * 2.0 ** min(attempt, 30))
        return (retry_after_s or 0.0) + random.uniform(0, bound)  # noqa: S311 - no secret

    async def probe(self) -> SharedContextError | None:
        """Return None if the server and its storage answer, else the failure. A proxy that does not
        pass /ready through answers something else, which counts as an answer."""
        try:
            request = self._http.build_request("GET", "/ready", timeout=httpx.Timeout(PROBE_S))
            response = await self._requests.send(request)
        except httpx.RequestError as exc:
            return error_of_network(exc)
        is_well = response.status_code < httpx.codes.INTERNAL_SERVER_ERROR
        return None if is_well else error_of(response)

    @asynccontextmanager
    async def open_events(
        self, session_id: str, last_event_id: int
    ) -> AsyncIterator[httpx.Response]:
        """Open a session's event stream after this event; one attempt. Network failures, also while
        the stream is open, are raised as ServerUnavailable, answers as in `post`. A stream more
        than the pool has connections for is refused, because other calls would wait for ever. Who
        reads raises CredentialEnded in the block where the stream says so: it becomes ServerUnavailable if
        there is a newer credential, else Unauthenticated."""
        if self._streams >= self.limits.max_connections - 1:
            raise SharedContextError(
                f"{self._streams} streams are open; the pool has only {self.limits.max_connections}"
                " connections.",
                code="TOO_MANY_STREAMS",
                suggestion="Limits(max_connections=…) makes it larger.",
            )
        self._streams += 1
        try:
            async with self._open_events(session_id, last_event_id) as response:
                yield response
        finally:
            self._streams -= 1

    @asynccontextmanager
    async def _open_events(
        self, session_id: str, last_event_id: int
    ) -> AsyncIterator[httpx.Response]:
        await self._breaker.admit(self.probe)
        credentials = await self._credentials.get_headers(self._trade)
        headers = {
            **credentials,
            b"Accept": b"text/event-stream",
            b"Cache-Control": b"no-store",
            b"Last-Event-ID": str(last_event_id).encode(),
        }
        request = self._http.build_request(
            "GET",
            "/events",
            params={"session_id": session_id},
            headers=headers,
            timeout=self._timeout(self.limits.stream_silence_s),
        )
        try:
            response = await self._requests.send(request, stream=True)
            try:
                await self._check_stream(response, credentials)
                yield response
            finally:
                await self._requests.end(response)
        except CredentialEnded as exc:
            if await self._credentials.renew_refused(credentials, self._trade):
                raise ServerUnavailable(
                    "The token of the stream has ended, and was renewed.", retry_after_s=0
                ) from exc
            raise Unauthenticated("The credential is not valid any more.") from exc
        except httpx.RequestError as exc:
            raise self._note_failure(exc) from exc

    async def _check_stream(self, response: httpx.Response, used: Headers) -> None:
        if response.status_code == httpx.codes.OK:
            self._breaker.note_answer()
            return
        await response.aread()
        if response.status_code == httpx.codes.UNAUTHORIZED and (
            await self._credentials.renew_refused(used, self._trade)
        ):
            raise ServerUnavailable(
                "The token was renewed while the stream was opened.", retry_after_s=0
            )
        raise self._note_error(response)

    async def _try(self, path: str, body: bytes, headers: Headers | None, answer_s: float) -> bytes:
        await self._breaker.admit(self.probe)
        used = headers or await self._credentials.get_headers(self._trade)
        response = await self._send(path, body, used, answer_s)
        # An unauthenticated call was not carried out, so repeating it is harmless.
        if (
            response.status_code == httpx.codes.UNAUTHORIZED
            and headers is None
            and await self._credentials.renew_refused(used, self._trade)
        ):
            used = await self._credentials.get_headers(self._trade)
            response = await self._send(path, body, used, answer_s)
        if response.status_code == httpx.codes.OK:
            self._breaker.note_answer()
            self._unread = response.headers.get(UNREAD_HEADER) or self._unread
            return response.content
        raise self._note_error(response)

    async def _send(
        self, path: str, body: bytes, headers: Headers, answer_s: float
    ) -> httpx.Response:
        request = self._http.build_request(
            "POST", path, content=body, headers=headers, timeout=self._timeout(answer_s)
        )
        try:
            return await self._requests.send(request)
        except httpx.RequestError as exc:
            raise self._note_failure(exc) from exc

    def _timeout(self, read_s: float) -> httpx.Timeout:
        # No time-out for a free connection: we cause that wait, not the server.
        return httpx.Timeout(
            self.limits.answer_s, connect=self.limits.connect_s, read=read_s, pool=None
        )

    def _note_error(self, response: httpx.Response) -> SharedContextError:
        error = error_of(response)
        # With a field, the error is about an auth_token argument of the call.
        if (
            isinstance(error, Unauthenticated)
            and self._credentials.are_missing
            and "field" not in error.details
        ):
            error.suggestion = NO_CREDENTIAL
        if is_away(error):
            self._breaker.note_failure(error)
        else:
            self._breaker.note_answer()
        return error

    def _note_failure(self, exc: httpx.RequestError) -> SharedContextError:
        if isinstance(exc, httpx.DecodingError):
            self._breaker.note_answer()
            return UnexpectedAnswer(f"The answer cannot be decompressed: {exc}.", status=200)
        error = error_of_network(exc)
        self._breaker.note_failure(error)
        return error

    async def _trade(
        self, tool_name: str, arguments: dict[str, object], headers: Headers
    ) -> TokenResult:
        tool = _TOOLS[tool_name]
        content = await self.post(
            TOOL_PATH + tool_name,
            encode_json(arguments),
            may_repeat=tool.may_repeat,
            headers=headers,
        )
        return read_result(content, TokenResult)
