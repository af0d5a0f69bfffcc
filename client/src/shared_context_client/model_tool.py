"""A tool as adapters of agent frameworks need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared_context_client.wire import JsonObject, Record, Tool


@dataclass(frozen=True, slots=True)
class ModelTool:
    """`description` and `schema` (JSON Schema of the arguments) are for a model to read; they are
    the server's own, without credentials. `result` is what an answer is read into."""

    tool: Tool
    result: type[Any]
    description: str
    schema: JsonObject

    @property
    def name(self) -> str:
        return self.tool.name


def text_of(answer: Record) -> str:
    """An answer as a model reads it: JSON."""
    return answer.model_dump_json()
