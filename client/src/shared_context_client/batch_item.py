"""One call of a batch, with its result or error."""

from __future__ import annotations

from typing import Any, Generic

from shared_context_client.answers import error_of_body, read_result
from shared_context_client.errors import NotSent, SharedContextError
from shared_context_client.wire import JsonObject, R_co, Tool, encode_json


class BatchItem(Generic[R_co]):
    """A call of a batch. It gets its result or error when the batch has been sent."""

    def __init__(self, tool: Tool, arguments: JsonObject, result: type[R_co]) -> None:
        self.tool = tool
        self.arguments = arguments
        self._type = result
        self._result: R_co | None = None
        self.error: SharedContextError | None = NotSent("The batch has not been sent.")
        """Why the call failed; None if it succeeded."""

    @property
    def result(self) -> R_co:
        """The call's result. Raises the call's error if it failed."""
        if self._result is None:
            assert self.error is not None
            raise self.error
        return self._result

    def encode(self) -> bytes:
        return encode_json({"tool": self.tool.name, "arguments": self.arguments})

    def settle(self, status: int, body: Any) -> None:
        """Store the server's answer to this call."""
        if status == 200:
            self._result, self.error = read_result(encode_json(body), self._type), None
        else:
            self.error = error_of_body(body, status, body.get("details", {}).get("retry_after_s"))
