"""Whatever is sent to a tool, the answer is a result or an error in the one shape, never a 5xx."""

from __future__ import annotations

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from shared_context_server.rest.openapi import openapi_document
from shared_context_server.tools.catalog import TOOLS
from shared_context_server.tools.registry import Tool
from tests.rest.conftest import call, create_session
from tests.settings import API_KEY

ERROR = Draft202012Validator(
    openapi_document(TOOLS, is_metrics_public=False)["components"]["schemas"]["Error"]
)
CLIENT_ERRORS = {400, 401, 403, 404, 409, 413}

SESSION = "a session"  # stands for one that exists
MESSAGE = "a message"
KEY = "a key"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**63, 10**400]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(
        ["", "\0", "public", "shared", "merge", "now", "2026-01-01T00:00:00Z", "%", "*"]
    ),
    st.sampled_from([SESSION, MESSAGE, KEY]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def plausible(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what the schema asks for, so that the call gets past the arguments."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "integer" | "number":
            low, high = schema.get("minimum", 0), schema.get("maximum", 2**40)
            return st.integers(low, min(high, low + 100)) | st.sampled_from([low, high])
        case "string":
            return st.text("aé-_ 7", min_size=schema.get("minLength", 0), max_size=30).map(
                str.strip
            )
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(plausible(schema.get("items", {})), max_size=4)
        case "object":
            return st.dictionaries(st.text(max_size=8), values, max_size=4)
        case _:
            return values


KNOWN = {
    "session_id": st.just(SESSION),
    "parent_message_id": st.just(MESSAGE),
    "key": st.just(KEY),
    "api_key": st.just(API_KEY),
    "auth_token": st.none(),
    "cursor": st.none(),
    "jti": st.none(),
    "expected_version": st.integers(0, 1),
    "start_time": st.sampled_from(["2026-01-01T00:00:00+02:00", 0, 1.5]),
    "end_time": st.sampled_from(["2096-01-01", 4e9]),
    "after": st.none(),
}


def arguments_of(tool: Tool[Any, Any]) -> st.SearchStrategy[Any]:
    """Arguments that are nearly right, wrong in one place or in all."""
    schema = tool.input_schema
    right = {
        name: KNOWN[name] if name in KNOWN else plausible(inner)
        for name, inner in schema["properties"].items()
    }
    required = schema.get("required", [])
    nearly = st.fixed_dictionaries(
        {name: right[name] for name in required},
        optional={name: strategy for name, strategy in right.items() if name not in required},
    )
    names = st.sampled_from(list(right)) | st.text(max_size=8)
    wrong = st.dictionaries(names, values, max_size=4)
    mixed = st.builds(lambda left, right: left | right, nearly, wrong)
    return st.one_of(nearly, nearly, mixed, wrong, values)


# What a waiting tool may take, and takes by default, s; waiting is not the subject here.
TIMES = {
    "acquire_lease": "wait_seconds",
    "claim_task": "wait_seconds",
    "wait_for_messages": "timeout_seconds",
}


def hurry(tool: Tool[Any, Any], arguments: Any) -> Any:
    """The arguments with 0 for any time above it."""
    if not tool.is_waiting or not isinstance(arguments, dict):
        return arguments
    time = arguments.get(TIMES[tool.name])
    is_wrong = time is not None and not isinstance(time, int | float | str)
    return arguments if is_wrong else arguments | {TIMES[tool.name]: 0}


def settle(value: Any, known: dict[str, Any]) -> Any:
    """The value with stand-ins replaced by what they stand for."""
    if isinstance(value, dict):
        return {name: settle(inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [settle(inner, known) for inner in value]
    return known.get(value, value) if isinstance(value, str) else value


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    drawn=st.sampled_from(TOOLS).flatmap(lambda tool: st.tuples(st.just(tool), arguments_of(tool))),
    is_ascii=st.booleans(),
)
async def test_no_arguments_break_a_tool(
    drawn: tuple[Tool[Any, Any], Any], is_ascii: bool, admin: httpx.AsyncClient
) -> None:
    tool, arguments = drawn[0], hurry(*drawn)
    known: dict[str, Any] = {SESSION: await create_session(admin), KEY: "k"}
    added = await call(admin, "add_message", session_id=known[SESSION], content="c", metadata={})
    known[MESSAGE] = added["message_id"]
    body = json.dumps(settle(arguments, known), ensure_ascii=is_ascii)
    response = await admin.post(f"/mcp/tool/{tool.name}", content=body)
    if response.status_code == 503:
        assert response.json()["code"] == "CLOCK_NOT_RUNNING"  # it is not, in these tests
    elif response.status_code == 200:
        assert response.json()["success"] is True
        Draft202012Validator(tool.output_schema).validate(response.json())
    else:
        assert response.status_code in CLIENT_ERRORS, response.text
        ERROR.validate(response.json())


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=200), path=st.sampled_from(["tool/create_session", "batch"]))
async def test_no_bytes_break_a_route(admin: httpx.AsyncClient, body: bytes, path: str) -> None:
    response = await admin.post(f"/mcp/{path}", content=body)
    assert response.status_code == 400
    ERROR.validate(response.json())
