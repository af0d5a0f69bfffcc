"""The base types of calls and results, and the encoding of arguments."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticSerializationError, to_json

from shared_context_client._generated.errors import InvalidArgument

JsonObject = dict[str, Any]

Moment = datetime | str | float
"""An aware datetime (a naive one is UTC), RFC 3339 text, or seconds since the Unix epoch."""


class Missing:
    """The type of MISSING."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""Not given, where None is a value that can be stored."""


class Record(BaseModel):
    """A part of a result. Unknown fields of a newer server are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


def _keep_unknown(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        if isinstance(value, str):
            return value
        raise


R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)

KeepUnknown = WrapValidator(_keep_unknown)
"""For choices: one that only a newer server knows is kept as it is, not refused."""


@dataclass(frozen=True, slots=True)
class Tool:
    """What the client knows of a tool, from the server's hints.

    `is_repeatable`: the tool is idempotent. `takes_key`: it takes an idempotency_key, which makes
    it idempotent. `waits_by`: the argument that says how many seconds it may wait.
    `null_is_a_value`: arguments for which null differs from being left out.
    """

    name: str
    is_repeatable: bool = False
    takes_key: bool = False
    waits_by: str | None = None
    default_wait_s: float = 0.0
    null_is_a_value: frozenset[str] = frozenset()

    @property
    def may_repeat(self) -> bool:
        """Whether a call whose answer was lost may be sent again."""
        return self.is_repeatable or self.takes_key

    def waiting_s(self, arguments: Mapping[str, Any]) -> float:
        """Return how long the server may wait at the caller's request; 0 if it answers at once."""
        if self.waits_by is None:
            return 0.0
        given = arguments.get(self.waits_by)
        # A model may have written anything; the server reports what is wrong.
        return float(given) if isinstance(given, int | float) else self.default_wait_s


@dataclass(frozen=True, slots=True)
class Call(Generic[R_co]):
    """One call of a tool, not sent yet: its arguments, and the type of its result."""

    tool: Tool
    arguments: JsonObject
    result: type[R_co]


def make_call(tool: Tool, result: type[R], /, **arguments: Any) -> Call[R]:
    """Make a call without the arguments that were not given. If the tool takes an idempotency_key,
    add one, so that the call has its effect once, however often it is sent."""
    given: JsonObject = {
        name: value.replace(tzinfo=UTC)
        if isinstance(value, datetime) and value.tzinfo is None
        else value
        for name, value in arguments.items()
        if value is not MISSING and (value is not None or name in tool.null_is_a_value)
    }
    if tool.takes_key:
        given.setdefault("idempotency_key", uuid.uuid4().hex)
    return Call(tool, given, result)


def encode_json(value: Any) -> bytes:
    """Return the JSON. Raises InvalidArgument for values that JSON cannot express."""
    try:
        return to_json(value, inf_nan_mode="constants")
    except (PydanticSerializationError, UnicodeEncodeError, ValueError, RecursionError) as exc:
        raise InvalidArgument(f"An argument cannot be written as JSON: {exc}.") from exc
