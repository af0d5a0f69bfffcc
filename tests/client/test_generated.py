"""The client knows what the server knows."""

from __future__ import annotations

import ast
import inspect
import sys
from asyncio import Future
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import shared_context_client
from shared_context_client import (
    BatchItem,
    MessageAdded,
    SharedContextClient,
    SyncSharedContextClient,
)
from shared_context_client._generated import registry
from shared_context_client.batches import Batch
from shared_context_client.outbox import Outbox
from shared_context_server.cli import client_source
from shared_context_server.tools.catalog import TOOLS

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "client/src").rglob("*.py"))


@pytest.mark.parametrize("name", client_source.FILES)
def test_the_generated_files_are_up_to_date(name: str) -> None:
    committed = (ROOT / client_source.DIRECTORY / name).read_text(encoding="utf-8")
    assert committed == client_source.source_of(name), "run: make docs"


@pytest.mark.parametrize("kind", [SharedContextClient, SyncSharedContextClient, Batch])
def test_every_tool_is_a_method_with_every_argument(kind: type) -> None:
    for tool in TOOLS:
        parameters = inspect.signature(getattr(kind, tool.name)).parameters
        assert set(parameters) - {"self"} == set(tool.arguments.model_fields)


@pytest.mark.parametrize(
    "method, returned",
    [
        (SharedContextClient.add_message, MessageAdded),
        (SyncSharedContextClient.add_message, MessageAdded),
        (Batch.add_message, BatchItem[MessageAdded]),
        (Outbox.add_message, Future[MessageAdded]),
    ],
)
def test_frameworks_can_read_a_method_s_signature(
    method: Callable[..., Any], returned: object
) -> None:
    assert inspect.signature(method).return_annotation == returned
    assert get_type_hints(method)["return"] == returned
    assert get_type_hints(method)["content"] is str
    assert method.__name__ == "add_message"
    assert "stored durably" in (inspect.getdoc(method) or "")
    assert inspect.iscoroutinefunction(method) is (method is SharedContextClient.add_message)


async def test_a_bound_method_does_not_show_self() -> None:
    async with SharedContextClient("http://127.0.0.1:1", api_key="key") as client:
        assert next(iter(inspect.signature(client.add_message).parameters)) == "session_id"


def test_what_an_idempotency_key_protects_may_go_into_the_outbox() -> None:
    keyed = {tool.name for tool in TOOLS if "idempotency_key" in tool.arguments.model_fields}
    assert keyed == {name for name in vars(Outbox.__mro__[1]) if not name.startswith("_")}


def test_only_what_is_not_safe_twice_is_not_repeated() -> None:
    once = {tool.name for tool in registry.TOOLS if not tool.may_repeat}
    assert once == {"authenticate_agent", "refresh_token", "create_session"}


def test_the_client_imports_nothing_but_its_dependencies() -> None:
    imported = set()
    for path in SOURCES:
        if "integrations" in path.parts:
            continue  # each has its framework, behind an extra
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    ours = {"shared_context_client", "httpx", "pydantic", "pydantic_core"}
    assert not {name for name in imported - ours if name not in sys.stdlib_module_names}


def test_what_is_public_is_there() -> None:
    for name in shared_context_client.__all__:
        assert getattr(shared_context_client, name) is not None
