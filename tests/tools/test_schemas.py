"""The schemas of the arguments and the server's checks say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from shared_context_server.errors import ContentTooLarge, InvalidArgument
from shared_context_server.tools.catalog import TOOLS
from shared_context_server.tools.dispatch import parse_arguments
from shared_context_server.tools.registry import Tool
from shared_context_server.tools.schemas import ANY_JSON

JsonSchema = dict[str, Any]
BOUNDS = {"minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "enum"}
# What an argument that breaks one of these is refused for; types are not among them, for the
# server takes "4" for 4.
HARD = BOUNDS | {"pattern", "required", "additionalProperties"}

all_tools = pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
texts = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20)
CALENDAR = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001 - offsets come with the draw
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
odd_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)  # no schema says it of integers inside of any JSON
    | st.sampled_from([-1, 0, 1, 2**31 + 1, 2**63 - 1, -62_135_596_801, 253_402_300_800])
    | st.floats(allow_nan=False, allow_infinity=False)
    | odd_texts
    | st.sampled_from(["", "\0", " a", "a\n", "a\tb", "x" * 65, "x" * 129, "public", "all"])
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
    max_leaves=6,
)


def agrees(schema: JsonSchema, value: Any) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


def valid_values(schema: JsonSchema) -> st.SearchStrategy[Any]:
    """Values that the schema allows, its bounds among them."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([valid_values(choice) for choice in schema["anyOf"]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return st.one_of([valid_values({**schema, "type": one}) for one in kind])
    match kind:
        case "integer":
            low, high = schema.get("minimum"), schema.get("maximum")
            edges = [edge for edge in (low, high) if edge is not None] or [0]
            return st.integers(low, high) | st.sampled_from(edges)
        case "number":
            low, high = schema["minimum"], schema["maximum"]
            return st.floats(low, high) | st.integers(low, high) | st.sampled_from([low, high])
        case "string":
            return valid_texts(schema)
        case "array":
            return st.lists(
                valid_values(schema.get("items", {})),
                min_size=schema.get("minItems", 0),
                max_size=min(3, schema.get("maxItems", 3)),
            )
        case "object":
            members = schema.get("additionalProperties")
            values = json_values if members is None else valid_values(members)
            return st.dictionaries(odd_texts, values, max_size=3)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    assert kind is None
    return json_values


def valid_texts(schema: JsonSchema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.datetimes(CALENDAR[0], CALENDAR[1], timezones=offsets).map(
            lambda time: time.isoformat()
        )
    low, high = schema.get("minLength", 0), schema.get("maxLength", 10**6)
    edges = st.sampled_from(["x" * low, "x" * high])
    # A `$` of JSON Schema is the end of the text; Python's, with which `agrees` looks, is also before
    # a last line end.
    return (texts | odd_texts | edges).filter(
        lambda text: agrees(schema, text) and not ("pattern" in schema and text.endswith("\n"))
    )


def valid_arguments(schema: JsonSchema) -> st.SearchStrategy[dict[str, Any]]:
    required = set(schema.get("required", []))
    values = {name: valid_values(part) for name, part in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: value for name, value in values.items() if name in required},
        optional={name: value for name, value in values.items() if name not in required},
    )


def broken_values(schema: JsonSchema) -> Iterator[Any]:
    """For each bound the schema states a value just beyond it."""
    for choice in schema.get("anyOf", []):
        yield from broken_values(choice)
    if "enum" in schema:
        yield "no such choice"
    if "minLength" in schema and schema["minLength"] > 0:
        yield ""
    if "maxLength" in schema:
        yield "x" * (schema["maxLength"] + 1)
    if "minimum" in schema:
        yield schema["minimum"] - 1
    if "maximum" in schema:
        yield schema["maximum"] + 1
    if schema.get("minItems"):
        yield []
    if "maxItems" in schema:
        item = schema["items"]["enum"][0] if "enum" in schema["items"] else "x"
        yield [item] * (schema["maxItems"] + 1)
    if "pattern" in schema:
        odd = ("\0", "a\x07b", " a", "a ")
        yield from (text for text in odd if not re.search(schema["pattern"], text))
    if "items" in schema:
        yield from ([broken] for broken in broken_values(schema["items"]))


@settings(max_examples=200, deadline=None)
@given(
    drawn=st.sampled_from(TOOLS).flatmap(
        lambda tool: st.tuples(st.just(tool), valid_arguments(tool.request_schema))
    )
)
def test_what_the_request_schema_allows_is_taken(drawn: tuple[Tool[Any, Any], Any]) -> None:
    tool, arguments = drawn
    assert agrees(tool.request_schema, arguments)
    parse_arguments(tool.arguments, arguments)


@settings(max_examples=200, deadline=None)
@given(
    drawn=st.sampled_from(TOOLS).flatmap(
        lambda tool: st.tuples(
            st.just(tool),
            valid_arguments(tool.request_schema),
            st.dictionaries(
                st.sampled_from(list(tool.request_schema["properties"])) | odd_texts,
                json_values,
                max_size=3,
            ),
        )
    )
)
def test_what_breaks_a_bound_of_the_request_schema_is_refused(
    drawn: tuple[Tool[Any, Any], Any, Any],
) -> None:
    tool, arguments, changes = drawn
    required = tool.request_schema.get("required", [])
    changes = {name: value for name, value in changes.items() if value != "" or name in required}
    changed = arguments | changes
    errors = Draft202012Validator(tool.request_schema).iter_errors(changed)
    if any(error.validator in HARD for error in errors):
        with pytest.raises((InvalidArgument, ContentTooLarge)):
            parse_arguments(tool.arguments, changed)


@all_tools
def test_each_bound_is_enforced_by_name(tool: Tool[Any, Any]) -> None:
    schema = tool.request_schema
    required = schema.get("required", [])
    right = {name: example(schema["properties"][name]) for name in required}
    parse_arguments(tool.arguments, right)
    for name, part in schema["properties"].items():
        for broken in broken_values(part):
            if broken == "" and name not in required:
                continue  # counts as missing
            assert not agrees(schema, right | {name: broken})
            with pytest.raises((InvalidArgument, ContentTooLarge)) as caught:
                parse_arguments(tool.arguments, right | {name: broken})
            assert caught.value.details["field"] == name, (name, broken)
    with pytest.raises(InvalidArgument) as caught:
        parse_arguments(tool.arguments, right | {"no_such": 1})
    assert caught.value.details["field"] == "no_such"
    assert not agrees(schema, right | {"no_such": 1})


def example(schema: JsonSchema) -> Any:
    return 1 if schema["type"] == "integer" else "x"


@all_tools
def test_null_and_an_empty_text_count_as_missing_for_optional_arguments(
    tool: Tool[Any, Any],
) -> None:
    schema = tool.request_schema
    required = schema.get("required", [])
    right = {name: example(schema["properties"][name]) for name in required}
    taken = parse_arguments(tool.arguments, right)
    optional = set(schema["properties"]) - set(required) - tool.arguments.null_is_a_value
    for nothing in (None, ""):
        assert parse_arguments(tool.arguments, right | dict.fromkeys(optional, nothing)) == taken
    assert agrees(schema, right | dict.fromkeys(optional))
    for name in required:
        if schema["properties"][name].get("minLength") is None and right[name] == "x":
            parse_arguments(tool.arguments, right | {name: ""})  # an empty text has a meaning
            continue
        with pytest.raises(InvalidArgument) as caught:
            parse_arguments(tool.arguments, right | {name: ""})
        assert caught.value.details["field"] == name


@all_tools
def test_clients_are_shown_the_same_names_and_bounds(tool: Tool[Any, Any]) -> None:
    shown, exact = tool.input_schema, tool.request_schema
    assert shown.get("required") == exact.get("required")
    assert list(shown["properties"]) == list(exact["properties"])
    for name, part in exact["properties"].items():
        if part:
            assert bounds(shown["properties"][name]) == bounds(part), name
        else:
            assert shown["properties"][name] == ANY_JSON


def inner_schemas(schema: JsonSchema) -> list[JsonSchema]:
    return [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]


def bounds(schema: JsonSchema) -> list[tuple[str, Any]]:
    """All bounds in a schema of one argument, however it says null."""
    found = [(name, value) for name, value in schema.items() if name in BOUNDS]
    for inner in inner_schemas(schema):
        found += bounds(inner)
    return found


@all_tools
def test_clients_are_shown_nothing_that_converters_fail_on(tool: Tool[Any, Any]) -> None:
    for schema in all_schemas(tool.input_schema):
        assert schema, "a schema without a type"
        assert not isinstance(schema.get("type"), list)
        assert "additionalProperties" not in schema
        assert "pattern" not in schema
        assert schema.get("type") != "array" or "items" in schema


def all_schemas(schema: JsonSchema) -> Iterator[JsonSchema]:
    yield schema
    for inner in [*schema.get("properties", {}).values(), *inner_schemas(schema)]:
        yield from all_schemas(inner)


def test_names_say_that_they_have_no_control_characters() -> None:
    (tool,) = (tool for tool in TOOLS if tool.name == "authenticate_agent")
    agent_id = tool.request_schema["properties"]["agent_id"]
    for name in ("alice", "Ärger 7", "a"):
        assert agrees(agent_id, name)
    for name in (" a", "a ", "a\x07b", "a\nb", "\x7f", ""):
        assert not agrees(agent_id, name)
