"""GET /docs: the OpenAPI document as one HTML page, without scripts and external files."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shared_context_server.auth.middleware.head import RawHeader
from shared_context_server.rest.wire import FixedAnswer
from shared_context_server.tools.schema_fields import SchemaField, describe_fields

JsonObject = dict[str, Any]

_PLACEHOLDERS = {"string": "…", "integer": 1, "number": 1, "boolean": True, "array": []}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    id: str
    method: str
    path: str
    description: str
    is_public: bool
    arguments: tuple[SchemaField, ...]
    answer: tuple[SchemaField, ...]
    statuses: tuple[str, ...]
    example: str | None


def docs_endpoint(document: JsonObject) -> FixedAnswer:
    """Make the page once: it depends on nothing that changes."""
    environment = Environment(
        loader=PackageLoader("shared_context_server.rest"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("docs.css").render()
    page = environment.get_template("docs.html").render(
        info=document["info"],
        groups=[(tag, _operations(document, tag["name"])) for tag in document["tags"]],
        error=describe_fields(document["components"]["schemas"]["Error"]),
        statuses=_statuses(document),
        style=Markup(style),  # noqa: S704 - a file of ours, and CSS has no use for escapes
    )
    return FixedAnswer(page.encode(), b"text/html; charset=utf-8", _security_headers(style))


def _security_headers(style: str) -> tuple[RawHeader, ...]:
    """Return headers that allow this stylesheet only: nothing else may be loaded, run or framed."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest())
    policy = (
        b"default-src 'none'; style-src 'sha256-%b'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'" % digest
    )
    return (
        (b"content-security-policy", policy),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )


def _operations(document: JsonObject, tag: str) -> list[Operation]:
    return [
        _operation(document, method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    ]


def _operation(document: JsonObject, method: str, path: str, operation: JsonObject) -> Operation:
    body = _schema(operation.get("requestBody"))
    is_public = operation.get("security") == []
    return Operation(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        description=operation.get("description", operation["summary"] + "."),
        is_public=is_public,
        arguments=describe_fields(body or {}),
        answer=describe_fields(_schema(operation["responses"]["200"]) or {}),
        statuses=tuple(sorted(operation["responses"])),
        example=None if body is None else _curl(path, body, is_public),
    )


def _schema(holder: JsonObject | None) -> JsonObject | None:
    media = (holder or {}).get("content", {}).get("application/json")
    schema: JsonObject | None = media and media["schema"]
    return schema


def _statuses(document: JsonObject) -> list[tuple[str, str]]:
    """Return the possible errors and what they mean, by status."""
    responses = document["components"]["responses"]
    return sorted(
        {
            status: responses[response["$ref"].rsplit("/", 1)[1]]["description"]
            for methods in document["paths"].values()
            for operation in methods.values()
            for status, response in operation["responses"].items()
            if "$ref" in response
        }.items()
    )


def _curl(path: str, body: JsonObject, is_public: bool) -> str:
    """Return a command to try: the required arguments, with values to fill in."""
    arguments = {
        name: _PLACEHOLDERS.get(inner.get("type"), {})
        for name, inner in body.get("properties", {}).items()
        if name in body.get("required", [])
    }
    lines = [
        f"curl http://127.0.0.1:23456{path}",
        *([] if is_public else ['-H "Authorization: Bearer $TOKEN"']),
        "-H 'Content-Type: application/json'",
        f"-d '{json.dumps(arguments, ensure_ascii=False)}'",
    ]
    return " \\\n  ".join(lines)
