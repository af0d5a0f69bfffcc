"""The command `keys`: creates, lists, rotates and revokes API keys of agents."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any

from cyclopts import App, Parameter

from shared_context_server.auth.identity import Identity
from shared_context_server.auth.key_lives import MAX_KEY_LIFE
from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.cli.existing_data import require_database
from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.help_texts import end_of_help
from shared_context_server.cli.hub.options import AsJson
from shared_context_server.cli.options import StorageOptions, tell_generated_keys
from shared_context_server.cli.permissions import PermissionList, parse_permissions
from shared_context_server.cli.show.tables import Column, print_table
from shared_context_server.cli.show.values import (
    NOTHING,
    print_json,
    show_age,
    show_cell,
    show_left,
    show_moment,
)
from shared_context_server.cli.texts import read_time
from shared_context_server.display import show_name
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import ApiKey, Permission
from shared_context_server.remote import exits
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import find_schema_status, open_storage

app = App(name="keys", help="Create, list, rotate and revoke API keys.")

LONGER_THAN_ALLOWED = MAX_KEY_LIFE + timedelta(days=1)  # so that adding it to a time is no error
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw]?)")

ExpiresIn = Annotated[
    str | None, Parameter(help="How long the key is valid, such as 90d, 12h or 30m.")
]
ExpiresAt = Annotated[
    str | None, Parameter(help="When it expires, such as 2027-06-30T12:00:00Z; UTC without a zone.")
]


@app.command(help_epilogue=end_of_help("keys create"))
async def create(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    agent_id: Annotated[
        str,
        Parameter(
            help="The only agent the key may be used for, or a pattern such as 'team-*' for all "
            "agents whose ids match."
        ),
    ],
    agent_type: Annotated[
        str | None,
        Parameter(help="The only agent type the key may be used with; default: any."),
    ] = None,
    permissions: PermissionList = "read,write",
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    label: Annotated[str | None, Parameter(help="A note of yours, which keys list shows.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it to stdout. It is shown only once; the server keeps its hash."""
    ceiling = parse_permissions(permissions)
    expiry = _read_expiry(expires_in, expires_at)
    async with _open_identity(options, may_create=True) as identity:
        record, key = await identity.keys.create(
            agent_id, ceiling, agent_type=agent_type, expires_at=expiry, label=label
        )
        _print_key(record, key, as_json=as_json)


@app.command(help_epilogue=end_of_help("keys rotate"))
async def rotate(
    key_id: Annotated[str, Parameter(help="As keys list shows it.")],
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    overlap: Annotated[
        str,
        Parameter(help="How long the old key stays valid, such as 24h or 30m; 0 ends it at once."),
    ] = "24h",
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one for the same agents and print that to stdout, only this once.

    The old key stays valid for a while, so that its users can change over. Without an expiry the new
    key lives as long as the old one was meant to.
    """
    expiry = _read_expiry(expires_in, expires_at)
    kept = _read_duration(overlap, "--overlap")
    async with _open_identity(options) as identity:
        await _require_active(identity, key_id)
        record, key = await identity.keys.rotate(key_id, overlap=kept, expires_at=expiry)
        until = "ended" if not kept else f"stays valid for {overlap}, unless it expires before"
        print(f"{key_id}: {until}", file=sys.stderr)
        _print_key(record, key, as_json=as_json)


def _show_expiry(key: dict[str, Any]) -> str:
    if key["expires_at"] is None:
        return "never"
    is_over = key["status"] in ("expired", "revoked")
    return show_moment(key["expires_at"]) if is_over else show_left(key["expires_at"])


_COLUMNS = (
    Column("key", lambda one: one["id"]),
    Column("agent", lambda one: show_name(one["agent_id"])),
    Column("permissions", lambda one: ",".join(one["permissions"]), rank=3),
    Column("created", lambda one: show_moment(one["created_at"]), rank=6),
    Column("status", lambda one: one["status"]),
    Column(
        "type",
        lambda one: show_name(one["agent_type"]) if one["agent_type"] else NOTHING,
        rank=5,
    ),
    Column("expires", _show_expiry, rank=2),
    Column("last used", lambda one: show_age(one["last_used_at"]), rank=4),
    Column("label", lambda one: show_cell(one["label"] or ""), is_wide=True),
)


@app.command(name="list", help_epilogue=end_of_help("keys list"))
async def list_(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    as_json: AsJson = False,
) -> None:
    """List the created keys with their expiry and last use, which is recorded once a minute."""
    async with _open_identity(options) as identity:
        keys = [_describe(key) for key in await identity.keys.list_all()]
    if as_json:
        print_json({"keys": keys})
        return
    print_table(_COLUMNS, keys, nothing="No keys were created yet.")


@app.command(help_epilogue=end_of_help("keys revoke"))
async def revoke(
    key_id: Annotated[str, Parameter(help="As keys list shows it.")],
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
) -> None:
    """Revoke a key and its tokens, in every process within a second."""
    async with _open_identity(options) as identity:
        await _require_active(identity, key_id, may_be_expired=True)
        await identity.keys.revoke(key_id)  # False if somebody else has just revoked it
    print(f"Revoked {key_id}.")


async def _require_active(identity: Identity, key_id: str, *, may_be_expired: bool = False) -> None:
    """Raise CommandFailed if there is no such key, or it has ended."""
    key = {one.id: one for one in await identity.keys.list_all()}.get(key_id)
    if key is None:
        raise CommandFailed(
            f"There is no key {show_name(key_id)}.",
            "`scs keys list` lists them with their ids.",
            exits.NOT_FOUND,
        )
    status = key.describe_status(utc_now())
    if status == "revoked" or (status == "expired" and not may_be_expired):
        hint = "`scs keys create` makes another one." if status == "expired" else ""
        raise CommandFailed(f"The key {key_id} is {status} already.", hint, exits.CONFLICT)


@asynccontextmanager
async def _open_identity(
    options: StorageOptions, *, may_create: bool = False
) -> AsyncIterator[Identity]:
    settings = options.load()
    if may_create:
        find_schema_status(settings)  # refuses a database that this process cannot reach
    else:
        require_database(settings, "so there are no keys")
    settings, are_keys_new = ensure_secrets(settings)
    async with open_storage(settings) as store:
        yield Identity(store, settings)
    if are_keys_new:  # after the command's own output
        tell_generated_keys(settings)


def _read_expiry(expires_in: str | None, expires_at: str | None) -> datetime | None:
    if expires_in is not None and expires_at is not None:
        raise InvalidArgument(
            "Give either --expires-in or --expires-at, not both.", field="expires_in"
        )
    if expires_in is not None:
        return utc_now() + min(_read_duration(expires_in, "--expires-in"), LONGER_THAN_ALLOWED)
    if expires_at is None:
        return None
    return read_time(expires_at, "--expires-at")


def _read_duration(text: str, option: str) -> timedelta:
    found = _DURATION.fullmatch(text.strip())
    if found is None or (not found[2] and int(found[1]) != 0):
        raise InvalidArgument(
            f"{option}: write a number with s, m, h, d or w, such as 90d or 12h.",
            field=option.strip("-").replace("-", "_"),
        )
    return timedelta(seconds=int(found[1]) * _SECONDS.get(found[2], 1))


def _print_key(record: ApiKey, key: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**_describe(record), "key": key})
        return
    of_type = "" if record.agent_type is None else f" of type {show_name(record.agent_type)}"
    agents = f"agents {record.agent_id}" if record.is_pattern else show_name(record.agent_id)
    life = "" if record.expires_at is None else f", until {record.expires_at:%F %R} UTC"
    permissions = ",".join(p for p in Permission if p in record.permissions)
    print(f"{record.id}: for {agents}{of_type}, {permissions}{life}", file=sys.stderr)
    if record.is_pattern:
        told = "Who uses it has to say which agent they are: SCS_AGENT_ID, --as, or X-Agent-ID over HTTP."
        print(told, file=sys.stderr)
    print(key)


def _describe(key: ApiKey) -> dict[str, Any]:
    """A key as JSON, without the hash of its secret."""

    def tell(moment: datetime | None) -> str | None:
        return None if moment is None else moment.isoformat().replace("+00:00", "Z")

    return {
        "id": key.id,
        "agent_id": key.agent_id,
        "is_pattern": key.is_pattern,
        "agent_type": key.agent_type,
        "permissions": [one for one in Permission if one in key.permissions],
        "status": key.describe_status(utc_now()),
        "label": key.label,
        "created_at": tell(key.created_at),
        "expires_at": tell(key.expires_at),
        "last_used_at": tell(key.last_used_at),
        "revoked_at": tell(key.revoked_at),
        "replaced_by": key.replaced_by,
    }
