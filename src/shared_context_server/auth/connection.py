"""What a connection has established about its caller, before any tool looks at arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared_context_server.auth.agent_names import clean_agent_name
from shared_context_server.errors import PermissionDenied, SharedContextError
from shared_context_server.models import ANONYMOUS, Caller, Permission

DEFAULT_AGENT_TYPE = "generic"
HEADER_FIELDS = ("X-Agent-ID", "X-Agent-Type")
ARGUMENT_FIELDS = ("agent_id", "agent_type")


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What an API key itself allows.

    `agent_id` is the id a created key is bound to, None for API_KEY and ADMIN_API_KEY.
    `default_agent_id` is used when nothing names the agent. `agent_type` is the type that a created
    key is bound to, None if it is bound to none.
    """

    key_id: str
    agent_id: str | None
    permissions: frozenset[Permission]
    default_agent_id: str
    agent_type: str | None = None

    def choose_type(self, claimed: str | None) -> str:
        """The agent type of who calls by this key and says to be of that type, or of none."""
        return claimed or self.agent_type or DEFAULT_AGENT_TYPE


@dataclass(frozen=True, slots=True)
class Connection:
    """What a request's headers, or a stdio or embedding host, established.

    `grant` is set when a valid API key was presented, beside a token too: it is what
    authenticate_agent works with. `refused`: a credential was presented and is not valid;
    every tool but authenticate_agent raises it. `is_named`: X-Agent-ID, a bound key or a token
    names the agent. `address` is the client's, for rate limits of the anonymous.
    """

    caller: Caller = ANONYMOUS
    grant: KeyGrant | None = None
    refused: SharedContextError | None = None
    is_named: bool = False
    address: str = ""

    def named(self, client_name: str | None) -> Connection:
        """This connection with the client's own name as agent id, where nothing else names it."""
        if self.is_named or self.caller.is_anonymous or client_name is None:
            return self
        agent_id = clean_agent_name(client_name)
        if agent_id is None:
            return self
        return replace(self, caller=replace(self.caller, agent_id=agent_id), is_named=True)


def connect_by_key(
    grant: KeyGrant, agent_id: str | None, agent_type: str | None, address: str
) -> Connection:
    """The connection of a key whose holder gives these names, and may."""
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
    """What is wrong with claiming this id and type, None for no claim, under a key that may be bound
    to others. `fields` are what the claims are called."""
    for claimed, bound, what, field in (
        (agent_id, grant.agent_id, "agent", fields[0]),
        (agent_type, grant.agent_type, "agent type", fields[1]),
    ):
        if bound is not None and claimed not in (None, bound):
            return PermissionDenied(
                f"This API key is bound to the {what} {bound!r}.",
                field=field,
                suggestion=f"Give that one as {field}, or leave it out; or use a key of your own.",
            )
    return None
