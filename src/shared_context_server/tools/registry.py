"""What a tool is. The one list of all of them is `catalog.TOOLS`; every surface reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from shared_context_server.auth.connection import Connection
from shared_context_server.models import Caller, Permission
from shared_context_server.services.context import Services
from shared_context_server.services.waiting import ReportProgress
from shared_context_server.tools.arguments import Arguments, Result

A = TypeVar("A", bound=Arguments)
R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class Call:
    """Who is calling, and through what."""

    caller: Caller
    connection: Connection
    report_progress: ReportProgress | None = None


@dataclass(frozen=True, slots=True)
class Hints:
    """MCP tool annotations; every tool here has a closed world (`openWorldHint` false)."""

    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False


READS = Hints(read_only=True, idempotent=True)
ADDS = Hints()
SETS = Hints(idempotent=True)
REMOVES = Hints(destructive=True, idempotent=True)


@dataclass(frozen=True)
class Tool(Generic[A, R]):
    """A tool as every surface serves it.

    `permission` None: the anonymous may call it. `is_core`: served under TOOLS=core too.
    `is_waiting`: it may take as long as its caller allows; REST watches for a client that hangs up.
    The handler's docstring is its description.
    """

    name: str
    arguments: type[A]
    result: type[R]
    handler: Callable[[Services, Call, A], Awaitable[R]]
    permission: Permission | None
    hints: Hints
    is_core: bool = True
    is_waiting: bool = False

    @cached_property
    def description(self) -> str:
        """The handler's docstring, one line a paragraph."""
        text = self.handler.__doc__ or ""
        return "\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        return _compact(self.arguments.model_json_schema(schema_generator=_SmallSchema))

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        return _compact(
            self.result.model_json_schema(mode="serialization", schema_generator=_OutputSchema)
        )


class _SmallSchema(GenerateJsonSchema):
    """Input schemas: an optional argument has its own type only, for null means missing anyway."""

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default", 0) is None:
            del found["default"]
        return found


class _OutputSchema(GenerateJsonSchema):
    """Output schemas: null is said as a further type, which is shorter than anyOf."""

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and "enum" not in inner:
            return {**inner, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}


# Pydantic writes a bound behind a validator function under its own name.
_KEYWORDS = {"ge": "minimum", "le": "maximum"}


def _compact(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without titles and internal descriptions, its $defs inlined."""
    definitions: dict[str, Any] = schema.pop("$defs", {})
    schema.pop("description", None)
    return _inline(schema, definitions)


def _inline(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        target = {**definitions[schema["$ref"].rsplit("/", 1)[1]]}
        target.pop("description", None)
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        return _inline(target | beside, definitions)
    compacted: dict[str, Any] = {}
    for original, value in schema.items():
        name = _KEYWORDS.get(original, original)
        if name == "properties":
            compacted[name] = {key: _inline(inner, definitions) for key, inner in value.items()}
        elif isinstance(value, dict) and name != "default":
            inlined = _inline(value, definitions)
            if inlined or name != "additionalProperties":  # {} allows anything, as its absence does
                compacted[name] = inlined
        elif name in ("anyOf", "allOf", "oneOf", "prefixItems"):
            compacted[name] = [_inline(inner, definitions) for inner in value]
        elif name != "title" and value not in ({}, []):
            compacted[name] = value
    return compacted
