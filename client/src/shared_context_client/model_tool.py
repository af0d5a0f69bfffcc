"""Describe a tool for the adapters of agent frameworks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared_context_client.wire import JsonObject, Record, Tool


@dataclass(frozen=True, slots=True)
class ModelTool:
    """A tool for a model. `description` and `schema` (JSON Schema of the arguments) are the
    server's own, without credentials. `result` is the type of the answer."""

    tool: Tool
    result: type[Any]
    description: str
    schema: JsonObject

    @property
    def name(self) -> str:
        return self.tool.name


def text_of(answer: Record) -> str:
    """Return an answer as JSON, for a model to read."""
    return answer.model_dump_json()
