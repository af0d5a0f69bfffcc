"""Base classes and shared types of the tools' arguments and results."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, from_json, to_json

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import AgentId
from shared_context_server.services.json_rules import TOO_DEEP, find_fault
from shared_context_server.services.memory import MAX_VALUE_BYTES

MAX_CONTENT_CHARS = 100_000
MAX_METADATA_BYTES = 64 * 1024
MAX_PARTICIPANTS = 200
TOO_LARGE = "content_too_large"
DEEP_JSON = "json_too_deep"
# The first and the last second of the years 1 to 9999.
MIN_EPOCH_S = -62_135_596_800
MAX_EPOCH_S = 253_402_300_799

_DATETIME: TypeAdapter[datetime] = TypeAdapter(datetime)


class Arguments(BaseModel):
    """Base class of every tool's arguments. Unknown arguments are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )
    null_is_a_value: ClassVar[frozenset[str]] = frozenset()

    auth_token: str | None = None

    @classmethod
    def tidy(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments without those that count as missing. Raises InvalidArgument for a
        text with U+0000, which PostgreSQL's text cannot store; in a JSON value it is an escape.

        Not done in validators, because Rust would call each of them for every argument.
        """
        if not any(map(_is_odd, arguments.values())):
            return arguments
        for name, value in arguments.items():
            if type(value) is str and "\0" in value and cls._is_text(name):
                reason = "must not contain the character U+0000"
                raise InvalidArgument(
                    f"{name}: {reason}.", field=name, errors=[{"field": name, "error": reason}]
                )
        return {n: value for n, value in arguments.items() if not cls._is_missing(n, value)}

    @classmethod
    def _is_text(cls, name: str) -> bool:
        return name in cls.model_fields and name not in cls.null_is_a_value

    @classmethod
    def _is_missing(cls, name: str, value: Any) -> bool:
        """Whether the value counts as missing. Null does. So does an empty text for an optional
        argument: some gateways send one for each argument without a value. For no optional argument
        does it mean anything else."""
        field = cls.model_fields.get(name)
        if field is None or name in cls.null_is_a_value:
            return False
        return value is None or (value == "" and not field.is_required())


def _is_odd(value: Any) -> bool:
    return value is None or (type(value) is str and (not value or "\0" in value))


class Result(BaseModel):
    """Base class of every tool's result."""

    # Built for the first answer, because most servers use few of them, and none is used to parse.
    model_config = ConfigDict(frozen=True, defer_build=True)

    success: Literal[True] = True


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a number, not true or false")
    return value


def _limit_content(value: str) -> str:
    if len(value) > MAX_CONTENT_CHARS:
        raise PydanticCustomError(
            TOO_LARGE,
            "content has {size} characters; {limit} is the limit",
            {"size": len(value), "limit": MAX_CONTENT_CHARS},
        )
    return value


def _limit_json(value: Any) -> JsonValue:
    return _read_json("value", value, MAX_VALUE_BYTES)


def _limit_metadata(value: Any) -> JsonValue:
    return _read_json("metadata", value, MAX_METADATA_BYTES)


def _read_json(name: str, value: Any, limit_bytes: int) -> JsonValue:
    """Return the value that its JSON text gives. Not as pydantic's JsonValue, which calls Python
    for each inner value and takes several times as long as parsing."""
    text = to_json(value)
    if len(text) > limit_bytes:
        raise PydanticCustomError(
            TOO_LARGE,
            "{name} is {size} bytes of JSON; {limit} is the limit",
            {"name": name, "size": len(text), "limit": limit_bytes},
        )
    fault = find_fault(text)
    if fault is not None:
        kind = DEEP_JSON if fault is TOO_DEEP else "json_value"
        raise PydanticCustomError(kind, "{fault}", {"fault": fault})
    parsed: JsonValue = from_json(text, allow_inf_nan=False)
    return parsed


def _parse_time(value: Any) -> datetime:
    """Parse RFC 3339, or seconds since the Unix epoch. Without an offset it is UTC."""
    if isinstance(value, bool):
        raise PydanticCustomError("time_type", "Input should be RFC 3339 or epoch seconds")
    if isinstance(value, int | float):
        if not MIN_EPOCH_S <= value <= MAX_EPOCH_S:
            raise PydanticCustomError("time_range", "The time is out of range")
        return datetime.fromtimestamp(value, UTC)
    parsed = _DATETIME.validate_python(value)
    if parsed.tzinfo is None:
        return parsed.replace(tzinfo=UTC)
    try:
        return parsed.astimezone(UTC)
    except OverflowError as exc:  # within a day of the first or last day of the calendar
        raise PydanticCustomError("time_range", "The time is out of range") from exc


def _write_time(value: datetime) -> str:
    """Return RFC 3339 in UTC with microseconds, so that texts sort as times do."""
    return value.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def is_false(value: object) -> bool:
    return not value


# JSON that is checked elsewhere: arguments below, stored values when they were written.
AnyJson = Annotated[Any, WithJsonSchema({})]
JsonMembers = dict[str, AnyJson]
Integer = Annotated[int, BeforeValidator(_refuse_bool)]
Number = Annotated[float, BeforeValidator(_refuse_bool)]
SessionId = Annotated[str, Field(min_length=1, max_length=64)]
Content = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"maxLength": MAX_CONTENT_CHARS}),
    AfterValidator(_limit_content),
]
Metadata = Annotated[dict[str, AnyJson], AfterValidator(_limit_metadata)]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=255)]
MemoryKey = Annotated[str, Field(min_length=1, max_length=255)]
LeaseName = Annotated[str, Field(min_length=1, max_length=255)]
Cursor = Annotated[str, Field(max_length=2000, description="next_cursor.")]
FencingToken = Annotated[Integer, Field(ge=1, le=2**63 - 1)]
AgentIds = Annotated[list[AgentId], Field(max_length=MAX_PARTICIPANTS)]
MessageId = Annotated[Integer, Field(ge=1, le=2**63 - 1)]
Seq = Annotated[Integer, Field(ge=0, le=2**63 - 1)]
FirstSeq = Annotated[int, Field(description="The log begins here; older ones were removed.")]
SeqBySession = Annotated[dict[str, Seq], Field(max_length=2000)]
TimeArgument = Annotated[
    datetime,
    BeforeValidator(_parse_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "number", "minimum": MIN_EPOCH_S, "maximum": MAX_EPOCH_S},
            ]
        }
    ),
]
Time = Annotated[
    datetime,
    PlainSerializer(_write_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Instance = Annotated[
    str, Field(exclude_if=is_false, description="The agent's thread; left out if it names none.")
]
JsonArgument = Annotated[AnyJson, AfterValidator(_limit_json)]
