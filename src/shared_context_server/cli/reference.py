"""Generates parts of the documentation, between markers: `make docs`.

The tools come from the registry, the settings from the fields of Settings, the commands from the
functions that run them, errors from their classes, metrics from where they are registered. A test
fails while a page is out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.argument import Argument
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shared_context_server import cli, errors, server
from shared_context_server.environment import PREFIX
from shared_context_server.limit_settings import LimitSettings
from shared_context_server.observability.metrics import STORE_GAUGES, Metrics
from shared_context_server.settings import Settings
from shared_context_server.tools.catalog import TOOLS
from shared_context_server.tools.registry import Tool
from shared_context_server.tools.schema_fields import describe_fields
from shared_context_server.tools.schemas import JsonSchema

DEFAULTS_IN_WORDS = {
    "data_dir": "the platform's user data directory",
    "database_url": "in DATA_DIR",
    "api_key": "generated",
    "admin_api_key": "generated",
    "jwt_secret_key": "generated",
}


def tools_table() -> str:
    """Every tool with the first sentence of its description."""
    rows = [(f"`{tool.name}`", _first_sentence(tool.description)) for tool in TOOLS]
    return _table(("tool", "what it does"), rows)


def tools_reference() -> str:
    """Every tool with its description, arguments and answer."""
    return "\n\n".join(_tool_section(tool) for tool in TOOLS)


def settings_table() -> str:
    """Every setting with its default and meaning."""
    rows = [
        (
            f"`{PREFIX}{name.upper()}`",
            f"`{name.upper()}`",
            _default(name, field),
            _escape(field.description or ""),
        )
        for name, field in sorted(Settings.model_fields.items(), key=_is_of_limits)
    ]
    return _table(("setting", "without prefix", "default", "meaning"), rows)


def _is_of_limits(setting: tuple[str, FieldInfo]) -> bool:
    """A key that moves the limits, which the base class has, behind the other settings."""
    return setting[0] in LimitSettings.model_fields


def commands_reference() -> str:
    """Every command with its description, arguments and options."""
    sections = [_command_section(words, command) for words, command in list_commands()]
    return "\n\n".join(sections)


def list_commands() -> Iterator[tuple[str, App]]:
    """Every command that can be run, with its words."""
    for name in cli.COMMANDS:
        command = cli.app[name]
        inner = [one for one in command if not one.startswith("-")]
        if command.default_command is not None:
            yield name, command
        for one in inner:
            yield f"{name} {one}", command[one]


def error_kinds() -> list[type[errors.SharedContextError]]:
    """The error classes that have their own code."""
    # Some are defined in the surfaces, so these must be imported.
    assert server.open_server is not None
    return [kind for kind in _subclasses(errors.SharedContextError) if "code" in vars(kind)]


def _subclasses(base: type[errors.SharedContextError]) -> Iterator[type[errors.SharedContextError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def errors_table() -> str:
    """Every code of an error, by status and code."""
    kinds: list[type[errors.SharedContextError]] = [errors.InternalError, *error_kinds()]
    rows = [
        (
            str(kind.status),
            f"`{kind.code}`",
            "yes" if kind.retryable else "no",
            _escape(first_paragraph(kind.__doc__)),
            _escape(_suggestion(kind)),
        )
        for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code))
    ]
    return _table(("status", "code", "retryable", "what has happened", "suggestion"), rows)


def _suggestion(kind: type[errors.SharedContextError]) -> str:
    """An error without one of its own says what to do when it is raised."""
    is_general = kind.suggestion == errors.SharedContextError.suggestion
    return "–" if is_general and kind is not errors.InternalError else kind.suggestion


def metrics_table() -> str:
    """Every metric with its labels, its type and its help."""
    metrics = Metrics()
    metrics.observe("a_tool", 200, 0.0)  # what has labels shows them from its first value on
    metrics.count_limited("a_limit")
    rows = []
    for family in metrics.registry.collect():
        labels = dict.fromkeys(name for sample in family.samples for name in sample.labels)
        labels.pop("le", None)  # of a histogram's buckets
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown = f"{name}{{{','.join(labels)}}}" if labels else name
        rows.append((f"`{shown}`", family.type, _escape(family.documentation)))
    rows += [(f"`{name}`", "gauge", _escape(text)) for name, text in STORE_GAUGES.items()]
    return _table(("metric", "type", "what it says"), sorted(rows))


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "README.md": ("tools", tools_table),
    "docs/tools.md": ("tools", tools_reference),
    "docs/configuration.md": ("settings", settings_table),
    "docs/command-line.md": ("commands", commands_reference),
    "docs/errors.md": ("errors", errors_table),
    "docs/metrics.md": ("metrics", metrics_table),
}
"""The name of each page's generated part, and the function that generates it."""


def fill(page: str, part: str, content: str) -> str:
    """The page with `content` between the markers of `part`. Raises ValueError without markers."""
    begin, end = f"<!-- {part}: generated by make docs -->", f"<!-- {part}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(page) is None:
        raise ValueError(f"the page has no markers {begin} … {end}")
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", page)


def write_pages(root: Path) -> list[Path]:
    """Update the generated parts of all pages under `root`. Return the pages that changed."""
    changed: list[Path] = []
    for name, (part, make) in PARTS.items():
        path = root / name
        old = path.read_text(encoding="utf-8")
        new = fill(old, part, make())
        if new != old:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def _command_section(words: str, command: App) -> str:
    arguments = [one for one in command.assemble_argument_collection() if one.show]
    positional = [one for one in arguments if one.index is not None]
    usage = " ".join(["scs", words, *map(_usage, positional)])
    described = inspect.getdoc(command.default_command) or ""
    rows = [
        (
            f"`{_placeholder(one)}`" if one in positional else ", ".join(map(_code, one.names)),
            "required" if one.required else _default_of(one),
            _escape(_meaning(one)),
        )
        for one in arguments
    ]
    lines = [f"### scs {words}", "", f"`{usage}`", "", described]
    if rows:
        lines += ["", _table(("argument", "default", "meaning"), rows)]
    return "\n".join(lines)


def _usage(argument: Argument) -> str:
    name = _placeholder(argument)
    if argument.field_info.kind is inspect.Parameter.VAR_POSITIONAL:
        name += "…"
    return name if argument.required else f"[{name}]"


def _placeholder(argument: Argument) -> str:
    return argument.names[0].lstrip("-").replace("-", "_").upper()


def _meaning(argument: Argument) -> str:
    choices = argument.get_choices()
    text = argument.parameter.help or ""
    return text if not choices else f"{text} One of {', '.join(choices)}.".lstrip()


def _default_of(argument: Argument) -> str:
    default = argument.field_info.default
    if default is inspect.Parameter.empty or default is False:
        return "–"
    return _value(getattr(default, "value", default))


def _tool_section(tool: Tool[Any, Any]) -> str:
    permission = tool.permission.value if tool.permission else "none"
    facts = [f"Permission: {permission}."]
    if tool.hints.read_only:
        facts.append("Read-only.")
    if tool.hints.destructive:
        facts.append("Destructive.")
    if not tool.is_core:
        facts.append("Not in `TOOLS=core`.")
    lines = [f"## {tool.name}", "", tool.description, "", " ".join(facts), ""]
    arguments = _arguments(tool.input_schema)
    if arguments:
        lines += [_table(("argument", "type", "default", "meaning"), arguments), ""]
    answer = ", ".join(f"`{name}`" for name in tool.output_schema["properties"])
    return "\n".join([*lines, f"Answer: {answer}"])


def _arguments(schema: JsonSchema) -> list[tuple[str, ...]]:
    return [
        (
            f"`{field.name}`",
            _escape(", ".join(filter(None, (field.type, field.bounds)))),
            "required" if field.is_required else _code(field.default),
            _escape(field.description),
        )
        for field in describe_fields(schema)
        if field.name != "auth_token"
    ]


def _code(text: str | None) -> str:
    return "–" if text is None else f"`{text}`"


def _default(name: str, field: FieldInfo) -> str:
    if name in DEFAULTS_IN_WORDS:
        return DEFAULTS_IN_WORDS[name]
    assert field.default is not PydanticUndefined, f"add the default of {name} to DEFAULTS_IN_WORDS"
    return _value(field.default)


def _value(value: Any) -> str:
    if value is None or value == ():
        return "–"
    if value == "":
        return '`""`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def first_paragraph(doc: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((doc or "").split("\n\n")[0].split())


def _first_sentence(text: str) -> str:
    return _escape(re.split(r"(?<=\.)\s", text, maxsplit=1)[0])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Update the pages of the given directory, by default of the working directory."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    for path in write_pages(root):
        print(f"updated {path}")


if __name__ == "__main__":
    main()
