"""The command `keys`: creates, lists and revokes API keys of single agents."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from cyclopts import App, Parameter

from shared_context_server.auth.identity import Identity
from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.cli.banner import without_password
from shared_context_server.cli.hub.options import AsJson
from shared_context_server.cli.options import StorageOptions, tell_generated_keys
from shared_context_server.cli.permissions import PermissionList, parse_permissions
from shared_context_server.cli.show.values import print_json
from shared_context_server.display import show_name
from shared_context_server.errors import ConfigurationError
from shared_context_server.models import ApiKey, Permission
from shared_context_server.storage import find_schema_status, open_storage

app = App(name="keys", help="Create, list and revoke API keys.")


@app.command
async def create(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    agent_id: Annotated[str, Parameter(help="The only agent the key may be used for.")],
    agent_type: Annotated[
        str | None,
        Parameter(help="The only agent type the key may be used with; default: any."),
    ] = None,
    permissions: PermissionList = "read,write",
    as_json: AsJson = False,
) -> None:
    """Create a key and print it to stdout. It is shown only once; the server keeps its hash."""
    ceiling = parse_permissions(permissions)
    async with _open_identity(options, may_create=True) as identity:
        record, key = await identity.create_key(agent_id, ceiling, agent_type=agent_type)
        of_type = "" if record.agent_type is None else f" of type {show_name(record.agent_type)}"
        who = f"{show_name(record.agent_id)}{of_type}"
        if as_json:
            print_json({**_describe(record), "key": key})
            return
        print(f"{record.id}: for {who}, {_permissions(record)}", file=sys.stderr)
        print(key)


@app.command(name="list")
async def list_(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    as_json: AsJson = False,
) -> None:
    """List the created keys: id, agent, permissions, time, status, agent type (- for any)."""
    async with _open_identity(options) as identity:
        keys = await identity.list_keys()
        if as_json:
            print_json({"keys": [_describe(key) for key in keys]})
            return
        for key in keys:
            created = key.created_at.isoformat(timespec="seconds")
            state = "active" if key.revoked_at is None else f"revoked {key.revoked_at:%F}"
            bound = "-" if key.agent_type is None else show_name(key.agent_type)
            fields = (key.id, show_name(key.agent_id), _permissions(key), created, state, bound)
            print("\t".join(fields))


@app.command
async def revoke(
    key_id: Annotated[str, Parameter(help="As keys list shows it.")],
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
) -> int:
    """Revoke a key and its tokens, in every process within a second."""
    async with _open_identity(options) as identity:
        is_revoked = await identity.revoke_key(key_id)
    if not is_revoked:
        print(f"There is no active key {show_name(key_id)}.", file=sys.stderr)
        return 1
    print(f"Revoked {key_id}.")
    return 0


@asynccontextmanager
async def _open_identity(
    options: StorageOptions, *, may_create: bool = False
) -> AsyncIterator[Identity]:
    settings = options.load()
    schema = find_schema_status(settings)  # refuses a database that this process cannot reach
    if not may_create and schema.current == 0:
        raise ConfigurationError(
            f"There is no database at {without_password(settings.storage_url)}, so there are no keys. "
            "Name another one with --data-dir or --database-url; the first start of serve creates it."
        )
    settings, are_keys_new = ensure_secrets(settings)
    async with open_storage(settings) as store:
        yield Identity(store, settings)
    if are_keys_new:  # after the command's own output
        tell_generated_keys(settings)


def _describe(key: ApiKey) -> dict[str, Any]:
    """A key as JSON, without the hash of its secret."""
    return {
        "id": key.id,
        "agent_id": key.agent_id,
        "agent_type": key.agent_type,
        "permissions": [one for one in Permission if one in key.permissions],
        "created_at": key.created_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
    }


def _permissions(key: ApiKey) -> str:
    return ",".join(p for p in Permission if p in key.permissions)
