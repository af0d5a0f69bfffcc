"""Parses and validates JSON-RPC 2.0 messages, and makes JSON-RPC errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, from_json, to_json

from shared_context_server.json_size import (
    MAX_ENVELOPE_VALUES,
    MAX_VALUES,
    count_values,
    has_too_many_values,
    is_envelope_too_large,
)

# https://www.jsonrpc.org/specification#error_object
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
# Codes for implementations, with their meaning in the MCP SDKs.
CONNECTION_CLOSED = -32000
OVERLOADED = -32001
REQUEST_CANCELLED = -32800

_BOM = b"\xef\xbb\xbf"
_TOO_MANY_VALUES = f"The message has more than {MAX_VALUES} JSON values"

JsonObject = dict[str, Any]
RequestId = int | str


class Refused(Exception):
    """A message is refused. `answer` is the JSON-RPC error with the reason."""

    def __init__(self, code: int, message: str, request_id: RequestId | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id
        self.answer = error_answer(request_id, code, message)


@dataclass(slots=True)
class Message:
    """A valid message. Only requests have an `id`. `count` is an upper bound of the number of JSON
    values, if they were counted."""

    kind: Literal["request", "notification", "response"]
    body: JsonObject
    id: RequestId | None = None
    count: int | None = None

    @property
    def method(self) -> str | None:
        return self.body.get("method")


def error_answer(
    request_id: RequestId | None, code: int, message: str, data: JsonObject | None = None
) -> JsonObject:
    """A JSON-RPC error response. `request_id` is None if the id could not be read."""
    error: JsonObject = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def parse_json(raw: bytes | str, max_bytes: int, count: int | None = None) -> Any:
    """Parse strict JSON. Raises Refused with PARSE_ERROR, or with INVALID_REQUEST if the text is too
    long or has too many values.

    If NaN, Infinity or lone surrogates are the only error, Refused has the id of the message.
    """
    try:
        data = raw.encode() if isinstance(raw, str) else raw  # ValueError for lone surrogates
        if len(data) > max_bytes:
            raise Refused(INVALID_REQUEST, f"The message is longer than {max_bytes} bytes")
        if has_too_many_values(data, count):
            raise Refused(INVALID_REQUEST, _TOO_MANY_VALUES)
        return from_json(data, allow_inf_nan=False)
    except ValueError as exc:
        raise Refused(PARSE_ERROR, _describe(raw, exc), read_id(parse_loosely(raw))) from exc


def parse_loosely(raw: bytes | str) -> Any:
    """Parse JSON that may contain NaN, Infinity and lone surrogates. None if it is not JSON or has too
    many values."""
    data = raw.encode(errors="surrogatepass") if isinstance(raw, str) else raw
    if has_too_many_values(data):
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _describe(raw: bytes | str, exc: ValueError) -> str:
    if raw[:3] == _BOM or raw[:1] == "\ufeff":
        return (
            "Parse error: the message begins with a byte order mark, which JSON forbids (RFC 8259)"
        )
    return f"Parse error: {replace_surrogates(str(exc))}"


def read_message(raw: bytes | str | JsonObject, max_bytes: int) -> Message:
    """Read a message from JSON or from an object. Raises Refused."""
    if isinstance(raw, bytes):
        count = count_values(raw)
        return classify(parse_json(raw, max_bytes, count), count)
    if isinstance(raw, bytearray | str):
        return classify(parse_json(raw, max_bytes))
    message = classify(raw)
    try:
        text = to_json(raw, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as exc:
        raise Refused(INVALID_REQUEST, "The message is not JSON", message.id) from exc
    if len(text) > max_bytes:
        raise Refused(INVALID_REQUEST, f"The message is longer than {max_bytes} bytes", message.id)
    if has_too_many_values(text):
        raise Refused(INVALID_REQUEST, _TOO_MANY_VALUES, message.id)
    return message


def classify(body: Any, count: int | None = None) -> Message:
    """Validate a parsed message, which has at most `count` values. Raises Refused."""
    if not isinstance(body, dict):
        raise Refused(
            INVALID_REQUEST,
            "The message must be one JSON object. Batches are not supported: send each message alone",
        )
    request_id = read_id(body)
    if body.get("jsonrpc") != "2.0":
        raise Refused(INVALID_REQUEST, 'jsonrpc must be "2.0"', request_id)
    is_small = count is not None and count <= MAX_ENVELOPE_VALUES
    if not is_small and is_envelope_too_large(body):
        raise Refused(
            INVALID_REQUEST,
            f"The message has more than {MAX_ENVELOPE_VALUES} JSON values outside a tool's arguments",
            request_id,
        )
    if "method" not in body:
        if request_id is not None and ("result" in body or "error" in body):
            return Message("response", body)
        raise Refused(INVALID_REQUEST, "method is missing", request_id)
    if not isinstance(body["method"], str):
        raise Refused(INVALID_REQUEST, "method must be a string", request_id)
    if not isinstance(body.get("params", {}), dict):
        raise Refused(INVALID_REQUEST, "params must be an object", request_id)
    if "id" not in body:
        return Message("notification", body)
    if request_id is None:
        raise Refused(INVALID_REQUEST, "id must be a string or an integer")
    return Message("request", body, request_id, count)


def read_id(body: Any) -> RequestId | None:
    """The id for the answer to this message; None if it has no valid one."""
    found = body.get("id") if isinstance(body, dict) else None
    if isinstance(found, str):
        if found.isascii():
            return found
        return found if replace_surrogates(found) == found else None  # the answer must be encodable
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def replace_surrogates(text: str) -> str:
    """The text with a question mark for each lone surrogate."""
    return text.encode(errors="replace").decode()
