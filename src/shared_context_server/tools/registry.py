"""The definition of a tool: name, schemas, permission and handler. `catalog.TOOLS` lists all tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from shared_context_server.auth.connection import Connection
from shared_context_server.models import Caller, Permission
from shared_context_server.services.context import Services
from shared_context_server.services.follow import ReportProgress
from shared_context_server.tools.arguments import Arguments, Result
from shared_context_server.tools.schemas import (
    JsonSchema,
    input_schema,
    output_schema,
    request_schema,
)
from shared_context_server.tools.written import Written

A = TypeVar("A", bound=Arguments)
R = TypeVar("R", bound=Result)


IDEMPOTENCY_KEY = "idempotency_key"


@dataclass(slots=True)
class Call:
    """The caller of a tool, its connection, and how to report progress."""

    caller: Caller
    connection: Connection
    report_progress: ReportProgress | None = None


@dataclass(frozen=True, slots=True)
class Hints:
    """MCP's tool annotations. Every tool here has a closed world (`openWorldHint` false)."""

    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False


READS = Hints(read_only=True, idempotent=True)
ADDS = Hints()
SETS = Hints(idempotent=True)
REMOVES = Hints(destructive=True, idempotent=True)


@dataclass(frozen=True)
class Tool(Generic[A, R]):
    """A tool as every surface serves it.

    `permission` None: anonymous callers may call it. `is_core`: also served with TOOLS=core.
    `is_waiting`: it may take as long as its caller allows. `is_long`: it may take seconds, and writes
    nothing. REST stops both if the client disconnects. The handler's docstring is the description. The
    handler returns a result, or JSON.
    """

    name: str
    arguments: type[A]
    result: type[R]
    handler: Callable[[Services, Call, A], Awaitable[R | Written[R]]]
    permission: Permission | None
    hints: Hints
    is_core: bool = True
    is_waiting: bool = False
    is_long: bool = False

    @property
    def title(self) -> str:
        """The name as people read it: "Get messages"."""
        return self.name.replace("_", " ").capitalize()

    @cached_property
    def description(self) -> str:
        """The handler's docstring, each paragraph in one line."""
        text = self.handler.__doc__ or ""
        return "\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))

    @cached_property
    def takes_idempotency_key(self) -> bool:
        """Whether a repeated call can be recognised by an argument."""
        return IDEMPOTENCY_KEY in self.arguments.model_fields

    @cached_property
    def input_schema(self) -> JsonSchema:
        """The schema of the arguments for MCP clients and models."""
        return input_schema(self.arguments)

    @cached_property
    def request_schema(self) -> JsonSchema:
        """The exact schema of the arguments, for OpenAPI."""
        return request_schema(self.arguments)

    @cached_property
    def output_schema(self) -> JsonSchema:
        """The schema of the result, for OpenAPI. MCP clients get none: some check errors against it
        too."""
        return output_schema(self.result)
