"""Make the OpenAPI 3.1 document from the registry of tools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared_context_server import __version__
from shared_context_server.errors import (
    Conflict,
    ContentTooLarge,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RateLimited,
    SharedContextError,
    Unauthenticated,
    Unavailable,
)
from shared_context_server.rest.calls import MAX_CALLS
from shared_context_server.rest.events import EVENTS_PATH, LAST_EVENT_ID, MAX_EVENT_ID
from shared_context_server.rest.fleet import FLEET_PATH, MAX_LISTED
from shared_context_server.services.fleet import DEFAULT_LISTED
from shared_context_server.tools.fleet import FleetPage
from shared_context_server.tools.registry import Tool
from shared_context_server.tools.schemas import output_schema

JsonObject = dict[str, Any]

TOOL_PATH = "/mcp/tool/{name}"
BATCH_PATH = "/mcp/batch"

_DESCRIPTION = """\
A common record for AI agents: sessions of messages, search and memory.

Every tool is a POST with a JSON object in and a JSON object out. Get a token from
`authenticate_agent` and send it as `Authorization: Bearer`, or send an API key as `X-API-Key`.
A null argument means the same as a missing one (but the `value` of `set_memory`), and so does an empty
text for an optional argument; unknown arguments are refused."""

_ERRORS: dict[str, tuple[type[SharedContextError], str]] = {
    "Invalid": (InvalidArgument, "An argument or the body is not valid; details.field names it."),
    "Unauthenticated": (Unauthenticated, "No credential, or one that is not valid (any more)."),
    "Denied": (PermissionDenied, "The caller may not do this."),
    "NotFound": (NotFound, "There is no such thing, or the caller may not know of it."),
    "Conflict": (Conflict, "The thing is in another state than the call expects."),
    "TooLarge": (ContentTooLarge, "A text, a value or the whole body is over its limit."),
    "Limited": (RateLimited, "Too many calls."),
    "Failed": (InternalError, "The server failed at this call."),
    "Unavailable": (
        Unavailable,
        "The storage does not answer just now. A write may have been made, as a whole or not at all.",
    ),
}
_RETRIED = ("Limited", "Unavailable")  # these carry Retry-After

_ERROR_SCHEMA: JsonObject = {
    "type": "object",
    "description": "Every failure, on every route.",
    "properties": {
        "success": {"const": False},
        "error": {"type": "string", "description": "What went wrong, for a reader."},
        "code": {"type": "string", "description": "Stable; what a program compares with."},
        "details": {
            "type": "object",
            "properties": {
                "field": {"type": "string", "description": "The argument that is at fault."}
            },
            "additionalProperties": True,
        },
        "suggestion": {"type": "string", "description": "What to do about it."},
        "retryable": {"type": "boolean", "description": "Whether it may succeed later as it is."},
    },
    "required": ["success", "error", "code", "details", "suggestion", "retryable"],
    "additionalProperties": False,
}

_BATCH_REQUEST: JsonObject = {
    "type": "object",
    "properties": {
        "calls": {
            "type": "array",
            "maxItems": MAX_CALLS,
            "items": {
                "type": "object",
                "properties": {
                    "tool": {"type": "string"},
                    "arguments": {"type": ["object", "null"]},
                },
                "required": ["tool"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["calls"],
    "additionalProperties": False,
}

_BATCH_RESPONSE: JsonObject = {
    "type": "object",
    "properties": {
        "results": {
            "type": "array",
            "description": "One for each call, in their order.",
            "items": {
                "type": "object",
                "properties": {
                    "status": {"type": "integer", "description": "As the tool's route has it."},
                    "result": {"type": "object", "description": "The tool's answer, or an error."},
                },
                "required": ["status", "result"],
            },
        }
    },
    "required": ["results"],
}


def openapi_document(tools: Iterable[Tool[Any, Any]], *, is_metrics_public: bool) -> JsonObject:
    """Return the document of a server that serves these tools."""
    paths: JsonObject = {
        TOOL_PATH.format(name=tool.name): {"post": _tool_operation(tool)} for tool in tools
    }
    paths[BATCH_PATH] = {"post": _batch_operation()}
    paths[EVENTS_PATH] = {"get": _events_operation()}
    paths[FLEET_PATH] = {"get": _fleet_operation()}
    paths |= _probe_paths(is_metrics_public)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shared Context Server",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [
            {"name": "tools", "description": "The same tools as over MCP."},
            {"name": "events", "description": "What happens, told as it happens."},
            {"name": "service", "description": "About the server and its agents."},
        ],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR_SCHEMA},
            "responses": {name: _error_response(name) for name in _ERRORS},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The token that authenticate_agent gives.",
                },
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "An API key; X-Agent-ID and X-Agent-Type say who uses it.",
                },
            },
        },
    }


def _tool_operation(tool: Tool[Any, Any]) -> JsonObject:
    schema = tool.request_schema
    operation: JsonObject = {
        "operationId": tool.name,
        "summary": tool.name.replace("_", " ").capitalize(),
        "description": tool.description,
        "tags": ["tools"],
        "requestBody": {
            "required": bool(schema.get("required")),
            "content": {"application/json": {"schema": schema}},
        },
        "responses": {
            "200": _json_response("The call succeeded.", tool.output_schema),
            **_error_references(*_ERRORS),
        },
    }
    if tool.permission is None:
        operation["security"] = []
    return operation


def _batch_operation() -> JsonObject:
    return {
        "operationId": "batch",
        "summary": f"Call up to {MAX_CALLS} tools",
        "description": "The calls are run in order; one that fails does not stop the next.",
        "tags": ["tools"],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _BATCH_REQUEST}},
        },
        "responses": {
            "200": _json_response("All calls were run; each has its status.", _BATCH_RESPONSE),
            **_error_references("Invalid", "Unauthenticated", "TooLarge", "Failed", "Unavailable"),
        },
    }


def _events_operation() -> JsonObject:
    return {
        "operationId": "events",
        "summary": "Follow what happens",
        "description": (
            "Server-sent events: those of the session that the query argument session_id names, "
            "else of everything you may see. Event `message` has a message as get_messages shows "
            "it, and as its id the seq (without session_id the message's id); the header "
            f"{LAST_EVENT_ID} resumes behind it, 0 begins at the very beginning, without it the "
            "stream begins now. Other events are hints that hold ids only and have no id."
        ),
        "tags": ["events"],
        "parameters": [
            {
                "name": "session_id",
                "in": "query",
                "description": "Only this session.",
                "schema": {"type": "string", "minLength": 1},
            },
            {
                "name": LAST_EVENT_ID,
                "in": "header",
                "description": "The id of the last event received.",
                "schema": {"type": "integer", "minimum": 0, "maximum": MAX_EVENT_ID},
            },
        ],
        "responses": {
            "200": {
                "description": "Events, until the client hangs up or the session is deleted.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **_error_references(
                "Invalid", "Unauthenticated", "Denied", "NotFound", "Failed", "Unavailable"
            ),
        },
    }


def _fleet_operation() -> JsonObject:
    return {
        "operationId": "fleet",
        "summary": "See what every agent does",
        "description": (
            "The agents that were seen within the last day, blocked and silent ones first: what each "
            "does and since when, whom it waits for, what it holds, its tasks, and how many messages "
            "of its session it has not read. As the first page of the dashboard."
        ),
        "tags": ["service"],
        "parameters": [
            {
                "name": "limit",
                "in": "query",
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_LISTED,
                    "default": DEFAULT_LISTED,
                },
            },
            {
                "name": "cursor",
                "in": "query",
                "description": "next_cursor of the page before.",
                "schema": {"type": "string"},
            },
        ],
        "responses": {
            "200": {
                "description": "One page.",
                "content": {"application/json": {"schema": output_schema(FleetPage)}},
            },
            **_error_references("Invalid", "Unauthenticated", "Denied", "Failed", "Unavailable"),
        },
    }


def _probe_paths(is_metrics_public: bool) -> JsonObject:
    metrics = _probe("metrics", "Prometheus metrics", _text_response())
    metrics["responses"] |= _error_references("Unauthenticated", "Denied")
    if not is_metrics_public:
        del metrics["security"]
    ready = _probe("ready", "Whether the storage answers", _status_response("ready"))
    ready["responses"] |= _error_references("Unavailable")
    return {
        "/health": {"get": _probe("health", "Whether the process answers", _status_response("ok"))},
        "/ready": {"get": ready},
        "/metrics": {"get": metrics},
    }


def _probe(name: str, summary: str, response: JsonObject) -> JsonObject:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["service"],
        "security": [],
        "responses": {"200": response},
    }


def _status_response(status: str) -> JsonObject:
    schema = {
        "type": "object",
        "properties": {"success": {"const": True}, "status": {"const": status}},
        "required": ["success", "status"],
    }
    return _json_response("It does.", schema)


def _text_response() -> JsonObject:
    return {
        "description": "The text format, version 0.0.4.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }


def _json_response(description: str, schema: JsonObject) -> JsonObject:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error_references(*names: str) -> JsonObject:
    return {
        str(_ERRORS[name][0].status): {"$ref": f"#/components/responses/{name}"} for name in names
    }


def _error_response(name: str) -> JsonObject:
    response = _json_response(_ERRORS[name][1], {"$ref": "#/components/schemas/Error"})
    if name in _RETRIED:
        response["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        }
    return response
