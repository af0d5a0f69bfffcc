"""What a tool is. The one list of all of them is `catalog.TOOLS`; every surface reads it."""

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


@dataclass(slots=True)
class Call:
    """Who is calling, and through what."""

    caller: Caller
    connection: Connection
    report_progress: ReportProgress | None = None


@dataclass(frozen=True, slots=True)
class Hints:
    """MCP tool annotations; every tool here has a closed world (`openWorldHint` false)."""

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

    `permission` None: the anonymous may call it. `is_core`: served under TOOLS=core too.
    `is_waiting`: it may take as long as its caller allows; REST watches for a client that hangs up.
    The handler's docstring is its description. It answers a result, or one that is JSON already.
    """

    name: str
    arguments: type[A]
    result: type[R]
    handler: Callable[[Services, Call, A], Awaitable[R | Written[R]]]
    permission: Permission | None
    hints: Hints
    is_core: bool = True
    is_waiting: bool = False

    @cached_property
    def description(self) -> str:
        """The handler's docstring, one line a paragraph."""
        text = self.handler.__doc__ or ""
        return "\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))

    @cached_property
    def input_schema(self) -> JsonSchema:
        """The arguments as MCP clients and models are shown them."""
        return input_schema(self.arguments)

    @cached_property
    def request_schema(self) -> JsonSchema:
        """The arguments exactly, for OpenAPI."""
        return request_schema(self.arguments)

    @cached_property
    def output_schema(self) -> JsonSchema:
        """The answer, for OpenAPI. MCP clients are given none: some check errors against it too."""
        return output_schema(self.result)
