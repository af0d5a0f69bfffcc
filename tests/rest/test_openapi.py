"""The OpenAPI document: valid, complete, and true."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared_context_server.server import Server
from shared_context_server.tools.catalog import TOOLS
from tests.clock.daemons import own_prefix, run_daemon_process
from tests.rest.conftest import OpenClient, call, create_session
from tests.settings import API_KEY
from tests.tool_calls import RIGHT_CALLS, SESSION

ERRORS = {"400", "401", "403", "404", "409", "413", "429", "500", "503"}
SENSORS = {"get_temperature", "get_humidity", "get_all_sensors"}  # which need a clock daemon


@pytest.fixture
async def document(stranger: httpx.AsyncClient) -> dict[str, Any]:
    response = await stranger.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


async def test_it_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())


async def test_it_lists_exactly_the_tools_of_the_registry(document: dict[str, Any]) -> None:
    listed = {path: set(methods) for path, methods in document["paths"].items()}
    tools = {f"/mcp/tool/{tool.name}": {"post"} for tool in TOOLS}
    probes: dict[str, set[str]] = {path: {"get"} for path in ("/health", "/ready", "/metrics")}
    assert listed == tools | probes | {
        "/mcp/batch": {"post"},
        "/events": {"get"},
        "/fleet": {"get"},
    }


async def test_a_core_server_lists_core_tools_only(open_agent: OpenClient) -> None:
    async with open_agent(tools="core") as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert (await client.post("/mcp/tool/list_agents")).status_code == 404
    listed = {path.removeprefix("/mcp/tool/") for path in paths if path.startswith("/mcp/tool/")}
    assert listed == {tool.name for tool in TOOLS if tool.is_core}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
async def test_a_tool_has_its_schemas_statuses_and_description(
    document: dict[str, Any], tool: Any
) -> None:
    operation = document["paths"][f"/mcp/tool/{tool.name}"]["post"]
    assert operation["operationId"] == tool.name
    assert operation["description"] == tool.description
    assert operation["requestBody"]["content"]["application/json"]["schema"] == tool.request_schema
    assert set(operation["responses"]) == ERRORS | {"200"}
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == tool.output_schema


async def test_optional_arguments_may_be_null_and_names_have_a_pattern(
    document: dict[str, Any],
) -> None:
    operation = document["paths"]["/mcp/tool/get_messages"]["post"]
    arguments = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert arguments["sender"]["type"] == ["string", "null"]
    assert "\\x1f" in arguments["sender"]["pattern"]
    assert arguments["limit"]["type"] == ["integer", "null"]
    assert {"type": "null"} in arguments["visibility"]["anyOf"]
    assert {"type": "null"} in arguments["start_time"]["anyOf"]
    assert arguments["session_id"]["type"] == "string"


async def test_what_the_document_allows_of_a_batch_and_of_a_stream_is_taken(
    document: dict[str, Any], agent: httpx.AsyncClient
) -> None:
    batch = document["paths"]["/mcp/batch"]["post"]["requestBody"]["content"]["application/json"]
    body = {"calls": [{"tool": "list_sessions", "arguments": None}, {"tool": "list_sessions"}]}
    Draft202012Validator(batch["schema"]).validate(body)
    answer = await agent.post("/mcp/batch", json=body)
    assert [result["status"] for result in answer.json()["results"]] == [200, 200]
    (last,) = (p for p in document["paths"]["/events"]["get"]["parameters"] if p["in"] == "header")
    beyond = {"Last-Event-ID": str(last["schema"]["maximum"] + 1)}
    assert (await agent.get("/events", headers=beyond)).status_code == 400


async def test_only_authenticating_and_the_probes_need_no_credential(
    document: dict[str, Any],
) -> None:
    assert document["security"] == [{"bearer": []}, {"apiKey": []}]
    public = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if operation.get("security") == []
    }
    assert public == {"authenticate_agent", "health", "ready"}


async def test_metrics_that_are_public_are_said_to_be(open_agent: OpenClient) -> None:
    async with open_agent(metrics_public=True) as client:
        document = (await client.get("/openapi.json")).json()
    assert document["paths"]["/metrics"]["get"]["security"] == []


async def test_errors_are_as_the_document_says(
    document: dict[str, Any], agent: httpx.AsyncClient
) -> None:
    schema = Draft202012Validator(document["components"]["schemas"]["Error"])
    for response in (
        await agent.post("/mcp/tool/create_session", json={}),
        await agent.post("/mcp/tool/get_audit_log", json={}),
        await agent.post("/mcp/batch", json={}),
        await agent.get("/nowhere"),
    ):
        schema.validate(response.json())


async def test_answers_are_as_the_document_says(
    document: dict[str, Any], agent: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent, metadata={"a": 1})
    here = {"session_id": session_id}
    granted = await call(agent, "authenticate_agent", agent_id="worker-7", api_key=API_KEY)
    calls = {
        name: {
            argument: session_id if value == SESSION else value
            for argument, value in arguments.items()
        }
        for name, arguments in RIGHT_CALLS
        if name not in SENSORS
    } | {
        "refresh_token": {"auth_token": granted["token"]},
        "revoke_token": {"auth_token": granted["token"]},
        "close_session": here,
        "delete_session": here,
    }
    assert set(calls) | SENSORS == {tool.name for tool in TOOLS}
    for name, arguments in calls.items():
        client = admin if name == "get_audit_log" else agent
        operation = document["paths"][f"/mcp/tool/{name}"]["post"]
        asked = operation["requestBody"]["content"]["application/json"]["schema"]
        Draft202012Validator(asked).validate(arguments)
        answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
        Draft202012Validator(answered).validate(await call(client, name, **arguments))


async def test_readings_are_as_the_document_says(
    document: dict[str, Any], open_agent: OpenClient
) -> None:
    with own_prefix() as prefix, run_daemon_process(prefix):
        async with open_agent(clock_prefix=prefix) as client:
            for name in (*SENSORS, "get_time"):
                operation = document["paths"][f"/mcp/tool/{name}"]["post"]
                schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
                Draft202012Validator(schema).validate(await call(client, name))


async def test_it_holds_no_data_and_no_credential(
    server: Server, agent: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    for path in ("/openapi.json", "/docs"):
        text = (await stranger.get(path)).text
        assert session_id not in text
        assert API_KEY not in text
