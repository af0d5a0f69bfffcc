"""The command `memory`: reads and writes the values that agents keep under keys."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any

from cyclopts import App, Parameter

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.help_texts import end_of_help
from shared_context_server.cli.hub.calls import call, list_pages, require_success
from shared_context_server.cli.hub.options import AsJson, HubOptions, Limit, Quiet
from shared_context_server.cli.show.tables import Column, print_table, tell_more
from shared_context_server.cli.show.values import (
    is_terminal,
    note,
    print_json,
    show_age,
    show_agent,
    show_cell,
    without_success,
)
from shared_context_server.cli.texts import read_file, read_json, read_object, read_text
from shared_context_server.display import show_printable
from shared_context_server.remote import exits

app = App(name="memory", help="Read and write the values that agents keep under keys.")


class Scope(StrEnum):
    PRIVATE = "private"
    SHARED = "shared"


class Mode(StrEnum):
    REPLACE = "replace"
    CREATE = "create"
    MERGE = "merge"
    APPEND = "append"
    INCREMENT = "increment"


Key = Annotated[str, Parameter(help="The key.")]
Session = Annotated[str | None, Parameter(help="Memory of this session; default: of none.")]
ScopeOption = Annotated[Scope, Parameter(help="shared by all, or private to the agent of --as.")]
Version = Annotated[
    int | None, Parameter(help="Only if it still has this version; 0: only if there is none.")
]

_COLUMNS = (
    Column("key", lambda one: show_cell(one["key"])),
    Column("version", lambda one: str(one["version"]), is_right=True, rank=1),
    Column("bytes", lambda one: str(one["size_bytes"]), is_right=True, rank=3),
    Column("updated", lambda one: show_age(one["updated_at"]), rank=2),
    Column("by", lambda one: show_agent(one["updated_by"]), rank=4),
    Column("metadata", lambda one: show_cell(one["metadata"] or None), is_wide=True),
)


@app.command(help_epilogue=end_of_help("memory get"))
def get(
    key: Key,
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    session: Session = None,
    scope: ScopeOption = Scope.SHARED,
    as_json: AsJson = False,
) -> None:
    """Print a value: a text as it is, anything else as JSON. With --json: the whole entry."""
    with hub_options.open_hub() as hub:
        answer = call(hub, "get_memory", key=key, session_id=session, scope=scope.value)
    value = answer["value"]
    if as_json:
        print_json(without_success(answer))
    elif not isinstance(value, str):
        print_json(value)
    elif is_terminal():
        print(show_printable(value))
    else:  # unchanged, so that it can be written back
        sys.stdout.write(value)


@app.command(name="set", help_epilogue=end_of_help("memory set"))
def set_(
    key: Key,
    *value: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="A text, or JSON; - reads it from stdin.")
    ],
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    file: Annotated[str | None, Parameter(help="Read the value from this file.")] = None,
    is_text: Annotated[
        bool, Parameter(name="--text", negative="", help="A text, even if it looks like JSON.")
    ] = False,
    is_json: Annotated[
        bool, Parameter(name="--as-json", negative="", help="Refuse a value that is not JSON.")
    ] = False,
    session: Session = None,
    scope: ScopeOption = Scope.SHARED,
    mode: Annotated[Mode, Parameter(help="How it changes a stored value.")] = Mode.REPLACE,
    expected_version: Version = None,
    ttl: Annotated[int | None, Parameter(help="Seconds until it expires.")] = None,
    metadata: Annotated[str | None, Parameter(help="A JSON object.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Store a value under a key, and print its version. What can be read as JSON is stored as JSON."""
    if (file is None) == (not value):
        raise CommandFailed(
            "Give one value: as words, as - for stdin, or with --file.", exit_code=exits.USAGE
        )
    if is_text and is_json:
        raise CommandFailed("--text and --as-json exclude each other.", exit_code=exits.USAGE)
    text = read_text(value) if file is None else read_file(file)
    arguments: dict[str, Any] = {
        "session_id": session,
        "expected_version": expected_version,
        "expires_in": ttl,
        "metadata": read_object(metadata, "--metadata"),
    }
    given = {name: one for name, one in arguments.items() if one is not None}
    given |= {"key": key, "scope": scope.value, "mode": mode.value}
    given["value"] = _read_value(text, is_text=is_text, is_json=is_json)
    with hub_options.open_hub() as hub:
        [answer] = hub.call_all([("set_memory", given)])
    require_success(answer)
    if as_json:
        print_json(without_success(answer))
    elif not quiet:
        print(answer["version"])


@app.command(name="list", help_epilogue=end_of_help("memory list"))
def list_(
    prefix: Annotated[str, Parameter(help="Only keys that begin so.")] = "",
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    session: Session = None,
    scope: ScopeOption = Scope.SHARED,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List keys with versions, sizes and metadata."""
    with hub_options.open_hub() as hub:
        answer = list_pages(
            hub,
            "list_memory",
            "entries",
            limit,
            prefix=prefix,
            session_id=session,
            scope=scope.value,
        )
        if as_json:
            print_json(without_success(answer))
            return
        print_table(_COLUMNS, answer["entries"], nothing="There are no such keys.")
        tell_more(answer)


@app.command(help_epilogue=end_of_help("memory delete"))
def delete(
    key: Key,
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    session: Session = None,
    scope: ScopeOption = Scope.SHARED,
    expected_version: Version = None,
    quiet: Quiet = False,
) -> int:
    """Delete the value under a key. Exit code 3 if there is none."""
    with hub_options.open_hub() as hub:
        answer = call(
            hub,
            "delete_memory",
            key=key,
            session_id=session,
            scope=scope.value,
            expected_version=expected_version,
        )
    if not answer["deleted"]:
        note(f"There is no value under {json.dumps(key)}.")
        return exits.NOT_FOUND
    if not quiet:
        note(f"Deleted {json.dumps(key)}.")
    return exits.DONE


def _read_value(text: str, *, is_text: bool, is_json: bool) -> Any:
    if is_text:
        return text
    if is_json:
        return read_json(text, "The value")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
