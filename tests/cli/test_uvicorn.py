"""What the program takes from uvicorn's classes is there, in the version that is installed.

uvicorn does not promise it. A name that a new version drops would not fail at import, but at the
first client who does something unusual.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from shared_context_server.cli import connections, http, workers

SUBCLASSES = [connections.Connection, http._Server, workers._Supervisor, workers._WorkerConfig]
# What holds an object of uvicorn's in the methods of Connection.
HOLDERS = {
    "cycle": RequestResponseCycle,
    "_running": RequestResponseCycle,
    "faulty": RequestResponseCycle,
    "last": RequestResponseCycle,
    "flow": FlowControl,
}


def parse(kind: type) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(kind)))


def uvicorns(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if base.__module__.startswith("uvicorn")]


def list_attributes(kind: type) -> set[str]:
    """The names of an object of this class: of the class, and those its methods set."""
    return set(dir(kind)) | {
        node.attr
        for base in kind.__mro__
        if base is not object and base.__module__.startswith(("uvicorn", "shared_context_server"))
        for node in ast.walk(parse(base))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def list_parameters(kind: type, method: str) -> list[str]:
    """As the source has them: other libraries replace methods of uvicorn when they are imported."""
    (found,) = [
        node
        for node in ast.walk(parse(kind))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == method
    ]
    return [argument.arg for argument in found.args.args]


def list_overridden(kind: type) -> Iterator[tuple[str, type]]:
    for name, value in vars(kind).items():
        bases = [base for base in uvicorns(kind) if name in vars(base)]
        if inspect.isfunction(value) and name != "__init__" and bases:
            yield name, bases[0]


@pytest.mark.parametrize("kind", SUBCLASSES)
def test_every_name_that_a_subclass_uses_exists(kind: type) -> None:
    used = {
        node.attr
        for node in ast.walk(parse(kind))
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id == "self")
            or ast.unparse(node.value) == "super()"
        )
    }
    assert used - list_attributes(kind) == set()


@pytest.mark.parametrize("kind", SUBCLASSES)
def test_every_method_that_a_subclass_overrides_takes_what_uvicorn_gives(kind: type) -> None:
    overridden = list(list_overridden(kind))
    assert overridden
    for name, base in overridden:
        assert list_parameters(kind, name) == list_parameters(base, name), name


def test_every_name_that_is_used_of_a_request_and_its_flow_exists() -> None:
    known = {kind: list_attributes(kind) for kind in set(HOLDERS.values())}
    used = [
        (holder, node.attr)
        for node in ast.walk(parse(connections.Connection))
        if isinstance(node, ast.Attribute)
        for holder in [node.value]
        if isinstance(holder, ast.Attribute | ast.Name)
    ]
    found = 0
    for holder, attribute in used:
        name = holder.attr if isinstance(holder, ast.Attribute) else holder.id
        if name in HOLDERS:
            found += 1
            assert attribute in known[HOLDERS[name]], f"{name}.{attribute}"
    assert found > 10
