"""The command `token`: issues a token without a running server."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.auth.identity import Identity
from shared_context_server.auth.local_clients import connect_local_client
from shared_context_server.cli.options import StorageOptions, load_secrets
from shared_context_server.cli.permissions import PermissionList, parse_permissions
from shared_context_server.models import Permission
from shared_context_server.storage import open_storage


async def token(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    agent_id: Annotated[str, Parameter(help="The agent that the token is for.")],
    agent_type: Annotated[str, Parameter(help="The type of that agent.")] = "generic",
    permissions: PermissionList = "read,write",
    as_json: Annotated[
        bool, Parameter(name="--json", negative="", help="Print the token's details as JSON.")
    ] = False,
) -> None:
    """Issue a token and print only the token to stdout.

    It is signed with the keys of the data dir, and valid for every server that uses these keys.
    """
    requested = parse_permissions(permissions)
    settings = load_secrets(options.load())
    async with open_storage(settings) as store:
        identity = Identity(store, settings)
        issued = await identity.authenticate(
            connection=await connect_local_client(
                identity, agent_id=None, agent_type=None, is_admin=Permission.ADMIN in requested
            ),
            agent_id=agent_id,
            agent_type=agent_type,
            api_key=None,
            requested_permissions=requested,
        )
    if as_json:
        print(json.dumps(asdict(issued) | {"expires_at": issued.expires_at.isoformat()}, indent=2))
    else:
        print(issued.token)
