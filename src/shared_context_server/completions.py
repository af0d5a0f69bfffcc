"""MCP completion: suggests values for the arguments of prompts and resource templates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fastmcp import FastMCP
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    CompletionArgument,
    PromptReference,
    ResourceTemplateReference,
)

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument, SharedContextError
from shared_context_server.models import Caller, MemoryScope, Permission
from shared_context_server.prompts import PROMPTS
from shared_context_server.services import agents, memory, sessions
from shared_context_server.services.context import Services
from shared_context_server.tools.mcp import SessionBindings, low_level_connection

MAX_VALUES = 100  # the protocol's limit for one answer
MAX_SEARCHED = 200  # of the newest sessions or agents
MAX_VALUE_CHARS = 2_000  # no id is longer
_VARIABLE = re.compile(r"\{(\w+)\}")


def add_completions(
    mcp: FastMCP[Any], services: Services, bindings: SessionBindings | None
) -> None:
    """Serve completion/complete for the prompts and the resource templates.

    It is added to the SDK's server: FastMCP answers an unknown prompt with no values, not an error.
    """

    async def complete(
        context: ServerRequestContext[Any, Any], params: CompleteRequestParams
    ) -> CompleteResult:
        connection = await low_level_connection(context, bindings)
        templates = await mcp.list_resource_templates(run_middleware=False)
        completer = Completer(services, (each.uri_template for each in templates))
        given = (params.context.arguments if params.context is not None else None) or {}
        try:
            if connection.refused is not None:
                raise connection.refused
            found = await completer.complete(connection.caller, params.ref, params.argument, given)
        except SharedContextError as exc:
            raise MCPError(INVALID_PARAMS, exc.message, exc.body()) from exc
        return CompleteResult(completion=found)

    mcp._mcp_server.add_request_handler("completion/complete", CompleteRequestParams, complete)


class Completer:
    """Finds values of an argument that the caller may see."""

    def __init__(self, services: Services, templates: Iterable[str]) -> None:
        self._services = services
        self._templates = {uri: frozenset(_VARIABLE.findall(uri)) for uri in templates}

    async def complete(
        self,
        caller: Caller,
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        given: dict[str, str],
    ) -> Completion:
        """The first values that begin with the typed text. Raises InvalidArgument for an unknown prompt,
        template or argument, and the errors of reading the values."""
        name, value = argument.name, argument.value
        policy.require_permission(caller, Permission.READ)
        self._require_served(ref, name)
        if len(value) > MAX_VALUE_CHARS:
            return Completion(values=[], total=0, has_more=False)
        if name == "session_id":
            return await self._sessions(caller, value)
        if name == "agent_id":  # of private memory, which only the agent itself may read
            return _complete(_beginning_with(value, [caller.agent_id]))
        if name == "key":
            return await self._keys(
                caller,
                value,
                given.get("session_id"),
                is_shared="session_id" in self._variables(ref),
            )
        if name == "to_agent":
            return await self._agents(caller, value, given.get("session_id"))
        if name == "agents":
            before, comma, last = value.rpartition(",")
            typed = last.strip()
            head = f"{before}{comma} " if comma else ""
            found = await self._agents(caller, typed, None)
            return found.model_copy(update={"values": [head + each for each in found.values]})
        return Completion(values=[], total=0, has_more=False)  # free text

    def _require_served(
        self, ref: PromptReference | ResourceTemplateReference, argument: str
    ) -> None:
        if isinstance(ref, PromptReference):
            prompt = PROMPTS.get(ref.name)
            named = f"prompt {ref.name[:100]!r}"
            known = None if prompt is None else prompt.argument_names
        else:
            named = f"resource template {ref.uri[:200]!r}"
            known = self._templates.get(ref.uri)
        if known is None:
            raise InvalidArgument(f"There is no {named}.", field="ref")
        if argument not in known:
            raise InvalidArgument(
                f"The {named} has no argument {argument[:100]!r}.",
                field="argument",
                suggestion=f"The arguments are: {', '.join(sorted(known))}.",
            )

    def _variables(self, ref: PromptReference | ResourceTemplateReference) -> frozenset[str]:
        if isinstance(ref, PromptReference):
            return PROMPTS[ref.name].argument_names
        return self._templates[ref.uri]

    async def _keys(
        self, caller: Caller, value: str, session_id: str | None, *, is_shared: bool
    ) -> Completion:
        """Find keys of a session's shared memory, or of the caller's private memory."""
        if is_shared and not session_id:
            return Completion(values=[], total=0, has_more=False)
        page = await memory.list_memory(
            self._services,
            caller,
            session_id=session_id if is_shared else None,
            scope=MemoryScope.SHARED if is_shared else MemoryScope.PRIVATE,
            prefix=value,
            limit=MAX_VALUES,
            cursor=None,
        )
        found = [entry.address.key for entry in page.entries]
        return _complete(found, is_all=page.next_cursor is None)

    async def _sessions(self, caller: Caller, value: str) -> Completion:
        """Find sessions by their id or by words of their purpose."""
        page = await sessions.list_sessions(
            self._services, caller, status=None, created_by=None, limit=MAX_SEARCHED, cursor=None
        )
        wanted = value.casefold()
        found = [
            each.session.id
            for each in page.sessions
            if each.session.id.startswith(value) or wanted in each.session.purpose.casefold()
        ]
        return _complete(found, is_all=page.next_cursor is None)

    async def _agents(self, caller: Caller, value: str, session_id: str | None) -> Completion:
        page = await agents.list_agents(
            self._services, caller, session_id=session_id or None, limit=MAX_SEARCHED, cursor=None
        )
        found = [each.agent.agent_id for each in page.agents]
        return _complete(_beginning_with(value, found), is_all=page.next_cursor is None)


def _beginning_with(value: str, candidates: Iterable[str]) -> list[str]:
    return [each for each in candidates if each.startswith(value)]


def _complete(found: list[str], *, is_all: bool = True) -> Completion:
    """The answer with these values. `is_all` false: there may be more values."""
    return Completion(
        values=found[:MAX_VALUES],
        total=len(found) if is_all else None,
        has_more=len(found) > MAX_VALUES or not is_all,
    )
