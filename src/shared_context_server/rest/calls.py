"""Call tools over plain HTTP: one in a request, or up to a hundred."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.types import Receive, Scope, Send

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.middleware import current_connection
from shared_context_server.errors import (
    AnswerTooLarge,
    InvalidArgument,
    RateLimited,
    Unauthenticated,
)
from shared_context_server.rest.wire import (
    read_body,
    run_while_connected,
    send_body,
    send_outcome,
    unread_header,
)
from shared_context_server.services.mentions import UnreadMentions
from shared_context_server.tools.dispatch import Dispatcher, Outcome, failure, parse_json

MAX_CALLS = 100
_BATCH_MISTAKES = {  # pydantic's messages for these name our classes, or no field
    "missing": "{field} is missing.",
    "model_type": "{field} must be a JSON object.",
    "dict_type": "{field} must be a JSON object.",
    "extra_forbidden": "Unknown field '{field}'.",
}
MAX_ANSWER_BYTES = 2 * 1024 * 1024  # bytes of all results of a batch; later calls are not run


class ToolEndpoint:
    """POST /mcp/tool/{name}. The body contains the arguments; an empty one means there are none."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.call(scope["path_params"]["name"], receive, send)

    async def call(self, name: str, receive: Receive, send: Send) -> None:
        """Serve a request for the tool with this name."""
        body = await read_body(receive)
        if body is None:
            return
        answer = self._dispatcher.call(name, body or {}, current_connection.get())
        tool = self._dispatcher.tools.get(name)
        if tool is not None and (tool.is_waiting or tool.is_long):
            outcome = await run_while_connected(receive, answer)
        else:
            outcome = await answer
        if outcome is not None:
            await send_outcome(send, outcome)


class BatchCall(BaseModel):
    """One call of a batch."""

    model_config = ConfigDict(extra="forbid")

    tool: str
    arguments: dict[str, Any] = {}

    @field_validator("arguments", mode="before")
    @classmethod
    def _null_is_none_given(cls, value: Any) -> Any:
        return {} if value is None else value


class Batch(BaseModel):
    """The body of POST /mcp/batch. Calls run in order; a failing call does not stop the next."""

    model_config = ConfigDict(extra="forbid")

    calls: list[BatchCall] = Field(max_length=MAX_CALLS)


class BatchEndpoint:
    """POST /mcp/batch. Each call has its own status and result, and counts for the rate limit.

    Once the results have MAX_ANSWER_BYTES, the remaining calls are refused and not run.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if body is None:
            return
        batch = parse_batch(body)
        if not batch.calls and current_connection.get().caller.is_anonymous:
            # As any other call would be answered.
            raise Unauthenticated("The request has no credential.")
        answered = await run_while_connected(receive, self._run(batch))
        if answered is not None:
            body, unread = answered
            headers = () if unread is None else (unread_header(unread),)
            await send_body(send, body, headers=headers)

    async def _run(self, batch: Batch) -> tuple[bytes, UnreadMentions | None]:
        """The body, and the mentions that the last call found unread."""
        unread = None
        connection = current_connection.get()
        results = []
        left = MAX_ANSWER_BYTES
        for number, call in enumerate(batch.calls):
            if left > 0:
                outcome = await self._call(number, call, connection)
            else:
                outcome = failure(AnswerTooLarge(MAX_ANSWER_BYTES))
            unread = outcome.unread or unread
            result = outcome.json()
            left -= len(result)
            results.append(b'{"status":%d,"result":%b}' % (outcome.status, result))
        return b'{"results":[%b]}' % b",".join(results), unread

    async def _call(self, number: int, call: BatchCall, connection: Connection) -> Outcome:
        if number:  # the first call is counted as the request
            try:
                self._dispatcher.services.limits.count_request(connection)
            except RateLimited as exc:
                return failure(exc)
        return await self._dispatcher.call(call.tool, call.arguments, connection)


def parse_batch(body: bytes) -> Batch:
    """Parse the body. Raises InvalidArgument naming what is wrong, as in calls.3.tool; no call is
    run then."""
    try:
        return Batch.model_validate(parse_json(body))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])[:100] or "body"
    raise InvalidArgument(
        _BATCH_MISTAKES.get(first["type"], f"{{field}}: {first['msg']}.").format(field=field),
        field=field,
        suggestion=f'Send {{"calls": [{{"tool": …, "arguments": {{…}}}}, …]}}, up to {MAX_CALLS}.',
    )
