"""Describe the fields of a JSON Schema in words, for documentation pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from shared_context_server.tools.schemas import ANY_JSON, JsonSchema

_BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
)
_UNBOUNDED = 2**31  # a maximum from here on is that of a database column, and tells readers nothing


@dataclass(frozen=True, slots=True)
class SchemaField:
    """A property of an object schema: an argument, or a field of a result.

    `type` and `bounds` are texts; `default` is JSON. `bounds` and `description` may be empty.
    """

    name: str
    type: str
    bounds: str
    is_required: bool
    default: str | None
    description: str


def describe_fields(schema: JsonSchema) -> tuple[SchemaField, ...]:
    """Return the properties of an object schema, the required ones first."""
    required = schema.get("required", [])
    fields = [
        SchemaField(
            name=name,
            type=type_text(part),
            bounds=", ".join(_bounds(part)),
            is_required=name in required,
            default=_default(part),
            description=part.get("description", ""),
        )
        for name, part in schema.get("properties", {}).items()
    ]
    return tuple(sorted(fields, key=lambda field: not field.is_required))


def type_text(schema: JsonSchema) -> str:
    """Return the type in a few words, with choices as JSON: `array of "read"

    "write"`.
    """
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("anyOf") == ANY_JSON["anyOf"]:
        return "any JSON"
    if "anyOf" in schema:
        return " or ".join(type_text(part) for part in schema["anyOf"])
    kind = schema.get("type", "any JSON")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"array of {type_text(schema.get('items', {}))}"
    return f"{kind}, {schema['format']}" if "format" in schema else str(kind)


def _bounds(schema: JsonSchema) -> Iterator[str]:
    for low_name, high_name, unit in _BOUNDS:
        low, high = schema.get(low_name), schema.get(high_name, _UNBOUNDED)
        if high < _UNBOUNDED:
            yield f"at most {high:,}{unit}" if low is None else f"{low:,}–{high:,}{unit}"
        elif low is not None:
            yield f"at least {low:,}{unit}"
    if "items" in schema:
        yield from (f"each {bound}" for bound in _bounds(schema["items"]))


def _default(schema: JsonSchema) -> str | None:
    return json.dumps(schema["default"]) if "default" in schema and "const" not in schema else None
