"""The connection of a client that runs as the server's own user."""

from __future__ import annotations

from shared_context_server.auth.connection import ARGUMENT_FIELDS, Connection
from shared_context_server.auth.identity import Identity


async def connect_local_client(
    identity: Identity,
    *,
    agent_id: str | None,
    agent_type: str | None,
    fields: tuple[str, str] = ARGUMENT_FIELDS,
    is_admin: bool = False,
) -> Connection:
    """Connect a client with the server's API key: a user who can start this process can also read the
    key.

    None as a name: the client's own name, and the type generic. The connection is `refused` for
    names that a new agent may not have; `fields` names the two in that error.
    """
    return await identity.connect_local(
        agent_id=agent_id, agent_type=agent_type, fields=fields, is_admin=is_admin
    )
