"""MCP prompts: texts that tell agents which tools to call for a task; they contain no stored data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastmcp import FastMCP
from fastmcp.prompts import Prompt, PromptArgument, PromptResult
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, GetPromptRequestParams
from mcp_types import Prompt as McpPrompt
from pydantic import BaseModel, Field, PrivateAttr

from shared_context_server.display import show_line, show_name, show_quoted
from shared_context_server.errors import InvalidArgument, SharedContextError
from shared_context_server.tools.arguments import Arguments, SessionId
from shared_context_server.tools.dispatch import parse_arguments

INSTRUCTIONS = """\
Shared messages and memory for agents that work together.
1. No identity yet? Call authenticate_agent(agent_id, api_key) once; its `next` says which auth_token to send with each call.
2. list_sessions, or create_session(purpose). Share findings with add_message; catch up with get_digest.
3. Continue with get_messages(after_seq=next_after_seq), then mark_read. Search with search_context.
4. set_memory stores values: private, or scope="shared"; use expected_version to not overwrite others.
Told of unread mentions? Read them. Retrying a write? Send the same idempotency_key. Errors say in "suggestion" what to do.
"""
_HIDDEN = frozenset({"auth_token"})  # an argument of all tools that prompts do not need


class SetUpCollaboration(Arguments):
    purpose: Annotated[
        str, Field(min_length=1, max_length=500, description="What the session is for.")
    ]
    agents: Annotated[
        str, Field(max_length=2_000, description="The other agents' ids, separated by commas.")
    ] = ""


class CatchUp(Arguments):
    session_id: Annotated[SessionId, Field(description="The session to read.")]


class HandOver(Arguments):
    session_id: Annotated[SessionId, Field(description="The session that the work belongs to.")]
    to_agent: Annotated[
        str, Field(max_length=128, description="Who continues; without it, everybody is told.")
    ] = ""


def set_up_collaboration(given: SetUpCollaboration) -> str:
    """Start a session for several agents."""
    others = f" The other agents are: {show_line(given.agents)}." if given.agents else ""
    return (
        f"Set up a shared session for this purpose: {show_line(given.purpose)}.{others}\n"
        "1. Call create_session with that purpose"
        " (access=invited and participants, if only these agents may read it).\n"
        "2. Add one message that states the goal, who does what, and how decisions are marked:"
        ' metadata {"type": "decision"} and {"type": "question"}.\n'
        "3. Put agreed facts into set_memory with the session_id and scope=shared.\n"
        "4. Tell me the session_id, so that I can give it to the other agents."
    )


def catch_up(given: CatchUp) -> str:
    """Read what happened in a session since you last read it."""
    return (
        f"Catch up on session {show_name(given.session_id)}: call get_digest; if something is"
        " unclear, use get_messages or search_context. Answer open questions to you with"
        " add_message and parent_message_id. Then call mark_read with next_after_seq, and tell"
        " me in a few sentences what changed and what is expected of you."
    )


def hand_over(given: HandOver) -> str:
    """Hand over your work so that another agent can continue."""
    to = f" with recipients [{show_quoted(given.to_agent)}]" if given.to_agent else ""
    return (
        f"Hand over your work in session {show_name(given.session_id)}: add one message{to} that says"
        " what is done, what is open, what failed, and where files and results are;"
        ' give it metadata {"type": "handover"}. Store machine-readable state with set_memory'
        " (session_id, scope=shared) under the key handover. Be brief and concrete."
    )


A = TypeVar("A", bound=Arguments)


class TextPrompt(Prompt):
    """A prompt whose arguments are the fields of a model. They are checked like a tool's."""

    _model: type[Arguments] = PrivateAttr()
    _compose: Callable[[Any], str] = PrivateAttr()

    @classmethod
    def of(cls, model: type[A], compose: Callable[[A], str]) -> TextPrompt:
        arguments = [
            PromptArgument(name=name, description=field.description, required=field.is_required())
            for name, field in model.model_fields.items()
            if name not in _HIDDEN
        ]
        name = compose.__name__
        title = name.replace("_", " ").capitalize()
        made = cls(name=name, title=title, description=compose.__doc__, arguments=arguments)
        made._model = model
        made._compose = compose
        return made

    def to_mcp_prompt(self, **overrides: Any) -> McpPrompt:
        """As FastMCP does, but without its own _meta."""
        return super().to_mcp_prompt(**{"_meta": None} | overrides)

    @property
    def argument_names(self) -> frozenset[str]:
        return frozenset(argument.name for argument in self.arguments or ())

    def check(self, arguments: Mapping[str, Any]) -> BaseModel:
        """The validated arguments. Raises InvalidArgument, which names the wrong one."""
        for name in arguments:
            if name in _HIDDEN:
                raise InvalidArgument(f"Unknown argument {name!r}.", field=name)
        return parse_arguments(self._model, dict(arguments))

    async def render(self, arguments: dict[str, Any] | None = None) -> PromptResult:
        return self.convert_result(self._compose(self.check(arguments or {})))


PROMPTS: Mapping[str, TextPrompt] = {
    prompt.name: prompt
    for prompt in (
        TextPrompt.of(SetUpCollaboration, set_up_collaboration),
        TextPrompt.of(CatchUp, catch_up),
        TextPrompt.of(HandOver, hand_over),
    )
}


class PromptErrorMiddleware(Middleware):
    """Answers wrong arguments with INVALID_PARAMS, before FastMCP logs them as a failure."""

    async def on_get_prompt(
        self,
        context: MiddlewareContext[GetPromptRequestParams],
        call_next: CallNext[GetPromptRequestParams, PromptResult],
    ) -> PromptResult:
        prompt = PROMPTS.get(context.message.name)
        if prompt is not None:
            try:
                prompt.check(context.message.arguments or {})
            except SharedContextError as exc:
                raise MCPError(INVALID_PARAMS, exc.message, exc.body()) from exc
        return await call_next(context)


def add_prompts(mcp: FastMCP[Any]) -> None:
    """Add all prompts to the server."""
    mcp.add_middleware(PromptErrorMiddleware())
    for prompt in PROMPTS.values():
        mcp.add_prompt(prompt)
