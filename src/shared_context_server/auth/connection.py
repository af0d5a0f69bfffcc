"""The identity of a connection: its caller and its API key."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from shared_context_server.auth.agent_names import clean_agent_name
from shared_context_server.auth.name_patterns import matches_pattern
from shared_context_server.errors import PermissionDenied, SharedContextError
from shared_context_server.models import ANONYMOUS, Caller, Permission
from shared_context_server.observability.traces import TraceParent

DEFAULT_AGENT_TYPE = "generic"
HEADER_FIELDS = ("X-Agent-ID", "X-Agent-Type")
ARGUMENT_FIELDS = ("agent_id", "agent_type")


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What an API key allows.

    `agent_id` and `agent_type` are those that a created key is bound to, None if it is not bound;
    API_KEY and ADMIN_API_KEY are not. `default_agent_id` is used when nothing names the agent.
    `agent_pattern`: the key is bound to all agents whose ids match, and its holder has to name one.
    `expires_at`: no token of the key is valid longer.
    """

    key_id: str
    agent_id: str | None
    permissions: frozenset[Permission]
    default_agent_id: str
    agent_type: str | None = None
    agent_pattern: str | None = None
    expires_at: datetime | None = None

    def choose_type(self, claimed: str | None) -> str:
        """The agent type of a caller with this key who claims this type (None: no claim)."""
        return claimed or self.agent_type or DEFAULT_AGENT_TYPE


@dataclass(frozen=True, slots=True)
class Connection:
    """The identity from a request's headers, or from a stdio or embedding host.

    `grant` is that of the API key, if a valid one was sent, also beside a token; authenticate_agent
    uses it. `refused` is the error of an invalid credential; every tool except authenticate_agent
    raises it. `is_named`: X-Agent-ID, a bound key or a token names the agent. `address` is the
    client's, for the rate limits of anonymous callers. `tool_use` is the client's id of this call; ''
    if it sends none. `trace_parent` is its span of this call, which says nothing of the identity: two
    connections that differ only in it are equal.
    """

    caller: Caller = ANONYMOUS
    grant: KeyGrant | None = None
    refused: SharedContextError | None = None
    is_named: bool = False
    address: str = ""
    tool_use: str = ""
    trace_parent: TraceParent | None = field(default=None, compare=False)

    def with_client_name(self, client_name: str | None) -> Connection:
        """The connection with the client's own name as agent id, if nothing else names the agent."""
        if self.is_named or self.caller.is_anonymous or client_name is None:
            return self
        agent_id = clean_agent_name(client_name)
        if agent_id is None:
            return self
        return replace(self, caller=replace(self.caller, agent_id=agent_id), is_named=True)


def connect_by_key(
    grant: KeyGrant, agent_id: str | None, agent_type: str | None, address: str
) -> Connection:
    """The connection of a key and of names that were already checked."""
    caller = Caller(
        agent_id or grant.default_agent_id,
        grant.choose_type(agent_type),
        grant.permissions,
        grant.key_id,
    )
    is_named = agent_id is not None or grant.agent_id is not None
    return Connection(caller, grant, None, is_named, address)


def check_binding(
    grant: KeyGrant,
    agent_id: str | None,
    agent_type: str | None,
    fields: tuple[str, str] = ARGUMENT_FIELDS,
) -> SharedContextError | None:
    """The error if the key is bound to another id or type than the claimed ones (None: no claim), else
    None. `fields` are the names of the two claims in errors."""
    pattern = grant.agent_pattern
    if pattern is not None and (agent_id is None or not matches_pattern(agent_id, pattern)):
        return PermissionDenied(
            f"This API key is for agents whose ids match {pattern!r}.",
            field=fields[0],
            suggestion=f"Send such an id as {fields[0]}, or use another key.",
        )
    for claimed, bound, what, name in (
        (agent_id, grant.agent_id, "agent", fields[0]),
        (agent_type, grant.agent_type, "agent type", fields[1]),
    ):
        if bound is not None and claimed not in (None, bound):
            return PermissionDenied(
                f"This API key is bound to the {what} {bound!r}.",
                field=name,
                suggestion=f"Send {bound!r} as {name}, or leave {name} out, or use another key.",
            )
    return None
