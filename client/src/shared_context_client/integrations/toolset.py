"""Shared code of the adapters: select tools for a model, and call them with its arguments.

Arguments are not checked here. The server refuses wrong ones by name, and its hint helps the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)

from shared_context_client._generated.errors import ToolNotFound
from shared_context_client._generated.model_tools import MODEL_TOOLS
from shared_context_client.client import SharedContextClient
from shared_context_client.model_tool import ModelTool
from shared_context_client.sync import SyncSharedContextClient
from shared_context_client.wire import Record, make_call

_BY_NAME = {tool.name: tool for tool in MODEL_TOOLS}


def select_tools(names: Iterable[str] | None) -> list[ModelTool]:
    """Return the tools of these names in this order; None: all. Raises ToolNotFound."""
    if names is None:
        return list(MODEL_TOOLS)
    wanted = list(names)
    for name in wanted:
        if name not in _BY_NAME:
            similar = get_close_matches(name, _BY_NAME, n=1)
            raise ToolNotFound(
                f"{name!r} is not a tool for models.",
                details={"tool": name},
                suggestion=f"Did you mean {similar[0]}?" if similar else "",
            )
    return [_BY_NAME[name] for name in wanted]


def call_tool(
    client: SyncSharedContextClient, tool: ModelTool, arguments: Mapping[str, Any]
) -> Record:
    """Call the tool and return its result. Raises SharedContextError."""
    answer: Record = client._call(make_call(tool.tool, tool.result, **arguments))
    return answer


async def acall_tool(
    client: SharedContextClient, tool: ModelTool, arguments: Mapping[str, Any]
) -> Record:
    """Call the tool and return its result. Raises SharedContextError."""
    answer: Record = await client._call(make_call(tool.tool, tool.result, **arguments))
    return answer


class _Arguments(BaseModel):
    """Arguments whose dump contains only what was given."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    @model_serializer(mode="wrap")
    def _dump_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = dump(self)
        return {name: value for name, value in dumped.items() if name in self.model_fields_set}


def arguments_model(tool: ModelTool, *, takes_null: bool = False) -> type[BaseModel]:
    """Make a model of a tool's arguments, for frameworks that want one. It has the server's JSON
    Schema and accepts any values. `takes_null`: optional arguments accept null, which means "not
    given"."""
    shown = deepcopy(tool.schema)
    required = shown.get("required", [])
    for name, part in shown["properties"].items():
        if takes_null and part and name not in required:
            shown["properties"][name] = {"anyOf": [part, {"type": "null"}]}

    def put_server_s_schema(schema: dict[str, Any]) -> None:
        schema.clear()
        schema.update(deepcopy(shown))  # some frameworks change the schema they get

    class Shown(_Arguments):
        model_config = ConfigDict(json_schema_extra=put_server_s_schema)

    fields: dict[str, Any] = {
        name: (Any, ... if name in required else None) for name in shown["properties"]
    }
    name = f"{tool.name.title().replace('_', '')}Arguments"
    model: type[BaseModel] = create_model(name, __base__=Shown, **fields)
    return model
