"""Generates the part of the Python client that follows from the tools and the errors: `make docs`.

These are models of the results, one method for each tool in all forms (async, sync, batch, outbox),
which calls can be repeated, and the errors by code. A test fails while the files are out of date.
"""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shared_context_server import errors
from shared_context_server.cli.reference import error_kinds, first_paragraph
from shared_context_server.tools.arguments import Result
from shared_context_server.tools.catalog import TOOLS
from shared_context_server.tools.registry import Tool

DIRECTORY = Path("client/src/shared_context_client/_generated")
HEADER = "# Written by `make docs` from the server's registry of tools. Do not edit.\n"
# Names of the argument that tells a waiting tool how long to wait.
WAIT_ARGUMENTS = ("timeout_seconds", "wait_seconds")
KEY_ARGUMENT = "idempotency_key"
# Unavailable is a subclass of the client's own error for a server that does not answer.
OTHER_BASES: dict[type[errors.SharedContextError], str] = {errors.Unavailable: "ServerUnavailable"}
# The client manages its credentials itself, so models do not get these tools.
CREDENTIAL_TOOLS = ("authenticate_agent", "refresh_token", "revoke_token")
# Public names of the modules that are written by hand.
PUBLIC = {
    "batch_item": ["BatchItem"],
    "batches": ["Batch"],
    "circuit_breaker": ["State"],
    "client": ["SharedContextClient"],
    "errors": [
        "CircuitOpen",
        "LeaseHeld",
        "NotSent",
        "OutboxFull",
        "ServerUnavailable",
        "SharedContextError",
        "UnexpectedAnswer",
    ],
    "leases": ["HeldLease"],
    "options": ["Breaker", "Limits", "Retries"],
    "outbox": ["Outbox", "Unsent"],
    "session": ["Memory", "Session"],
    "sync": ["SyncClaimedTask", "SyncMemory", "SyncSession", "SyncSharedContextClient"],
    "tasks": ["ClaimedTask"],
    "wire": ["MISSING", "Moment"],
}

POSITIONAL = "session_id"
"""The argument that methods take by position even where it is optional."""

# Names


def _constant(tool: Tool[Any, Any]) -> str:
    return tool.name.upper()


def _type_name(annotation: Any, *, is_argument: bool) -> str:
    """The annotation as source code, without its constraints: the server checks these."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0], is_argument=is_argument)
    if annotation in (Any, JsonValue):  # arguments and results are JSON
        return "Any" if is_argument else "JsonValue"
    if annotation is None or annotation is types.NoneType:
        return "None"
    if origin in (Union, types.UnionType):
        parts = [_type_name(part, is_argument=is_argument) for part in get_args(annotation)]
        return " | ".join(parts)
    if origin is Literal:
        return _literal(annotation, is_argument=is_argument)
    if origin is list:
        name = "Sequence" if is_argument else "list"
        return f"{name}[{_type_name(get_args(annotation)[0], is_argument=is_argument)}]"
    if origin is dict:
        if is_argument:
            return "Mapping[str, Any]"
        return f"dict[str, {_type_name(get_args(annotation)[1], is_argument=False)}]"
    if annotation is datetime and is_argument:
        return "Moment"
    assert isinstance(annotation, type), f"no source for {annotation!r}"
    return annotation.__name__


def _literal(annotation: Any, *, is_argument: bool) -> str:
    choices = ", ".join(repr(choice) for choice in get_args(annotation))
    return f"Literal[{choices}]" if is_argument else f"Annotated[Literal[{choices}], KeepUnknown]"


def _enums(annotation: Any) -> Iterator[type[StrEnum]]:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        yield annotation
    for part in get_args(annotation):
        yield from _enums(part)


def _models(annotation: Any) -> Iterator[type]:
    """The models and dataclasses of an annotation, the parts of each one before it."""
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or is_dataclass(annotation)
    ):
        for field in _fields(annotation).values():
            yield from _models(field)
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _fields(model: type) -> dict[str, Any]:
    """The types of its fields by name."""
    if issubclass(model, BaseModel):
        return {name: field.annotation for name, field in model.model_fields.items()}
    return get_type_hints(model)


# Results


def results() -> str:
    """The module of the results' models, and of the enumerations of arguments and results."""
    models = list(dict.fromkeys(model for tool in TOOLS for model in _models(tool.result)))
    enums = _all_enums()
    lines = [
        '"""What the tools answer."""',
        "from __future__ import annotations",
        "from datetime import datetime",
        "from typing import Annotated, Literal",
        "from pydantic import JsonValue",
        "from shared_context_client.wire import KeepUnknown, Record",
    ]
    for enum in enums:
        choices = ", ".join(repr(choice.value) for choice in enum)
        lines.append(f"{enum.__name__} = Annotated[Literal[{choices}], KeepUnknown]")
    return "\n\n".join([*lines, *map(_result, models)])


def _all_enums() -> list[type[StrEnum]]:
    models = {model for tool in TOOLS for model in (*_models(tool.result), tool.arguments)}
    fields = [annotation for model in models for annotation in _fields(model).values()]
    found = {enum for annotation in fields for enum in _enums(annotation)}
    return sorted(found, key=lambda enum: enum.__name__)


def _enum_names() -> list[str]:
    return [enum.__name__ for enum in _all_enums()]


def _result(model: type) -> str:
    answers = [tool.name for tool in TOOLS if tool.result is model]
    doc = f"Answer of {', '.join(answers)}." if answers else f"{model.__name__}, in an answer."
    fields = [
        f"    {name}: {_type_name(annotation, is_argument=False)}{_default(model, name)}"
        for name, annotation in _fields(model).items()
        if name not in Result.model_fields
    ]
    return "\n".join([f"class {model.__name__}(Record):", f'    """{doc}"""', "", *fields])


def _default(model: type, name: str) -> str:
    """The default of a field of results that some answers leave out, or those of an older server."""
    if is_dataclass(model):
        default = next(one.default for one in fields(model) if one.name == name)
    else:
        assert issubclass(model, BaseModel)
        default = model.model_fields[name].default
        if default is None and model.model_fields[name].exclude_if is not None:
            return " = None"
    if default == "":
        return ' = ""'
    if default in ([], {}):
        return f" = {default}  # noqa: RUF012 - pydantic copies it"
    return f" = {default}" if isinstance(default, int) else ""


# Tools


def registry() -> str:
    """The module of the tools' properties: which calls the client can repeat."""
    lines = [
        '"""What may be repeated, by the server\'s own hints."""',
        "from __future__ import annotations",
        "from shared_context_client.wire import Tool",
        *(f"{_constant(tool)} = {_facts(tool)}" for tool in TOOLS),
        f"TOOLS = ({', '.join(map(_constant, TOOLS))},)",
        '"""All tools of the server this client was made for."""',
    ]
    return "\n".join(lines)


def _facts(tool: Tool[Any, Any]) -> str:
    facts = [repr(tool.name)]
    if tool.hints.read_only or tool.hints.idempotent:
        facts.append("is_repeatable=True")
    if KEY_ARGUMENT in tool.arguments.model_fields:
        facts.append("takes_key=True")
    if tool.is_waiting:
        (waits_by,) = (name for name in WAIT_ARGUMENTS if name in tool.arguments.model_fields)
        default = float(tool.arguments.model_fields[waits_by].default)
        facts.append(f"waits_by={waits_by!r}, default_wait_s={default}")
    if tool.arguments.null_is_a_value:
        names = sorted(tool.arguments.null_is_a_value)
        facts.append(f"null_is_a_value=frozenset({names!r})")
    return f"Tool({', '.join(facts)})"


def model_tools() -> str:
    """The module of tool descriptions and results for the adapters of agent frameworks."""
    tools = [tool for tool in TOOLS if tool.name not in CREDENTIAL_TOOLS]
    results = sorted({tool.result.__name__ for tool in tools})
    lines = [
        '"""The tools as a model is shown them."""',
        "from __future__ import annotations",
        "from shared_context_client._generated import registry",
        f"from shared_context_client._generated.results import {', '.join(results)}",
        "from shared_context_client.model_tool import ModelTool",
        f"MODEL_TOOLS = ({', '.join(map(_model_tool, tools))},)",
        '"""All tools of the server this client was made for, but those for credentials."""',
    ]
    return "\n".join(lines)


def _model_tool(tool: Tool[Any, Any]) -> str:
    schema = dict(tool.input_schema)
    # The client adds auth_token itself.
    schema["properties"] = {
        name: part for name, part in schema["properties"].items() if name != "auth_token"
    }
    return (
        f"ModelTool(registry.{_constant(tool)}, {tool.result.__name__}, "
        f"{tool.description!r}, {schema!r})"
    )


def calls() -> str:
    """The module with one method for each tool, which makes the call but does not send it."""
    names = sorted(_names_in_signatures())
    # Annotations are evaluated here: forms.py reads them.
    lines = [
        '"""The tools as methods that make calls and send nothing."""',
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, Literal",
        "from shared_context_client._generated import registry",
        f"from shared_context_client._generated.results import {', '.join(names)}",
        "from shared_context_client.wire import MISSING, Call, Missing, Moment, make_call",
        "class Calls:",
        '    """One method a tool."""',
        *map(_method, TOOLS),
    ]
    return "\n\n".join(lines)


def tools() -> str:
    """The module with these methods in all forms."""
    keyed = [tool for tool in TOOLS if KEY_ARGUMENT in tool.arguments.model_fields]
    lines = [
        '"""The methods of clients, batches and outboxes."""',
        "from __future__ import annotations",
        "from shared_context_client import forms",
        "from shared_context_client._generated.calls import Calls",
        _form("Async", "One coroutine method a tool.", "awaited"),
        _form("Sync", "One method a tool, that returns when it is answered.", "blocking"),
        _form("Batch", "One method a tool, that takes the call into the batch.", "batched"),
        _form(
            "Outbox",
            "One method for each write that may be repeated, that takes it into the outbox.",
            "queued",
            keyed,
        ),
    ]
    return "\n\n".join(lines)


def _form(name: str, doc: str, decorator: str, tools: Iterable[Tool[Any, Any]] = TOOLS) -> str:
    methods = [f"    {tool.name} = forms.{decorator}(Calls.{tool.name})" for tool in tools]
    head = [f"class {name}Tools(forms.{name}Form):", f'    """{doc}"""', ""]
    return "\n".join([*head, *methods])


def _names_in_signatures() -> set[str]:
    names = {tool.result.__name__ for tool in TOOLS}
    for tool in TOOLS:
        for field in tool.arguments.model_fields.values():
            names |= {enum.__name__ for enum in _enums(field.annotation)}
    return names


GIVEN_BY_PLACE = {("search_context", "session_id")}
"""Optional arguments that clients give by place, as they did when the server required them."""


def _method(tool: Tool[Any, Any]) -> str:
    fields = {name: f for name, f in tool.arguments.model_fields.items() if name != "auth_token"}
    first: list[str] = []
    then: list[str] = []
    for name, field in fields.items():
        hint = _type_name(field.annotation, is_argument=True)
        if field.is_required() or (tool.name, name) in GIVEN_BY_PLACE:
            first.insert(sum("=" not in one for one in first), f"{name}: {hint}")
        elif name in tool.arguments.null_is_a_value:
            first.append(f"{name}: {hint} | Missing = MISSING")
        elif name == POSITIONAL:
            first.append(f"{name}: {hint.removesuffix(' | None')} | None = None")
        else:
            then.append(f"{name}: {hint.removesuffix(' | None')} | None = None")
    parameters = ["self", *first, "*", *then, "auth_token: str | None = None"]
    given = ", ".join(f"{name}={name}" for name in (*fields, "auth_token"))
    result = tool.result.__name__
    return "\n".join(
        [
            f"    def {tool.name}({', '.join(parameters)}) -> Call[{result}]:",
            f'        """{_docstring(tool, fields)}"""',
            f"        return make_call(registry.{_constant(tool)}, {result}, {given})",
        ]
    )


def _docstring(tool: Tool[Any, Any], fields: dict[str, FieldInfo]) -> str:
    notes = [f"        {name}: {_note(field)}" for name, field in fields.items() if _note(field)]
    text = tool.description.replace("\n", "\n\n        ")
    return "\n".join([text, "", *notes, "        "]) if notes else text


def _note(field: FieldInfo) -> str:
    """The description and the default of an argument."""
    notes = [field.description] if field.description else []
    default = field.default
    if default is not None and default is not PydanticUndefined:
        values = default if isinstance(default, list) else [default]
        text = ", ".join(f"{value}" for value in values)
        if text:
            notes.append(f"Default: {text}.")
    return " ".join(notes)


# Errors


def error_classes() -> str:
    """The module of the error classes, by code."""
    found = error_kinds()
    rows = ", ".join(f"{kind.__name__}.code: {kind.__name__}" for kind in found)
    lines = [
        '"""The failures that the server names."""',
        "from __future__ import annotations",
        "from typing import ClassVar",
        "from shared_context_client.errors import ServerUnavailable, SharedContextError",
        *map(_error_class, found),
        f"BY_CODE: dict[str, type[SharedContextError]] = {{{rows}}}",
    ]
    return "\n\n".join(lines)


def _error_class(kind: type[errors.SharedContextError]) -> str:
    base = OTHER_BASES.get(kind, kind.__mro__[1].__name__)
    return "\n".join(
        [
            f"class {kind.__name__}({base}):",
            f'    """{first_paragraph(kind.__doc__)}"""',
            "",
            f"    code = {kind.code!r}",
            f"    default_status: ClassVar[int | None] = {kind.status}",
            f"    default_retryable: ClassVar[bool] = {kind.retryable}",
        ]
    )


def exports() -> str:
    """The module of the client's public names: hand-written ones, and all results and errors."""
    models = list(dict.fromkeys(model for tool in TOOLS for model in _models(tool.result)))
    modules = PUBLIC | {
        "_generated.errors": [kind.__name__ for kind in error_kinds()],
        "_generated.results": [*(model.__name__ for model in models), *_enum_names()],
    }
    lines = ['"""A typed client of the Shared Context Server."""']
    for module, names in modules.items():
        lines.append(f"from shared_context_client.{module} import {', '.join(names)}")
    names = sorted(name for exported in modules.values() for name in exported)
    return "\n".join([*lines, f"__all__ = {names!r}"])


FILES: dict[str, Callable[[], str]] = {
    "../__init__.py": exports,
    "errors.py": error_classes,
    "results.py": results,
    "registry.py": registry,
    "model_tools.py": model_tools,
    "calls.py": calls,
    "tools.py": tools,
}
"""The function that generates each file."""


def source_of(name: str) -> str:
    """The content of a file: formatted, with sorted imports and without unused ones."""
    path = DIRECTORY / name
    source = FILES[name]()
    for command in (["check", "--fix", "--select", "F401,I,RUF022"], ["format"]):
        source = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", str(path), "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return HEADER + source


def main() -> None:
    """Write the files. The working directory must be the repository's root."""
    for name in FILES:
        path = DIRECTORY / name
        new = source_of(name)
        if not path.exists() or path.read_text(encoding="utf-8") != new:
            path.write_text(new, encoding="utf-8")
            print(f"updated {path}")


if __name__ == "__main__":
    main()
