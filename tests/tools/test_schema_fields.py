"""Fields of a JSON Schema in words."""

from __future__ import annotations

import pytest

from shared_context_server.tools.schema_fields import SchemaField, describe_fields, type_text
from shared_context_server.tools.schemas import ANY_JSON


@pytest.mark.parametrize(
    "schema, shown",
    [
        ({}, "any JSON"),
        ({"type": "string"}, "string"),
        ({"type": "string", "format": "date-time"}, "string, date-time"),
        ({"type": ["string", "null"]}, "string or null"),
        ({"enum": ["a", "b"], "type": "string"}, '"a" | "b"'),
        ({"const": True}, "true"),
        ({"type": "array", "items": {"type": "integer"}}, "array of integer"),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, "string or number"),
        (ANY_JSON, "any JSON"),
    ],
)
def test_types_are_said_in_a_few_words(schema: dict[str, object], shown: str) -> None:
    assert type_text(schema) == shown


@pytest.mark.parametrize(
    "schema, bounds",
    [
        ({"type": "string"}, ""),
        ({"minLength": 1, "maxLength": 100_000}, "1–100,000 characters"),
        ({"maxLength": 64}, "at most 64 characters"),
        ({"minimum": 0}, "at least 0"),
        ({"minimum": 1, "maximum": 2**63 - 1}, "at least 1"),
        ({"maxItems": 9, "items": {"maxLength": 5}}, "at most 9 items, each at most 5 characters"),
    ],
)
def test_bounds_are_said_with_their_unit(schema: dict[str, object], bounds: str) -> None:
    (field,) = describe_fields({"properties": {"it": schema}})
    assert field.bounds == bounds


def test_required_fields_come_first() -> None:
    schema = {
        "properties": {
            "limit": {"type": "integer", "default": 50, "description": "At most."},
            "query": {"type": "string"},
        },
        "required": ["query"],
    }
    assert describe_fields(schema) == (
        SchemaField("query", "string", "", True, None, ""),
        SchemaField("limit", "integer", "", False, "50", "At most."),
    )
