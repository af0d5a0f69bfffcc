"""Tools for memory."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from shared_context_server import policy
from shared_context_server.models import (
    MemoryAddress,
    MemoryEntry,
    MemoryMode,
    MemoryScope,
    Permission,
)
from shared_context_server.services import memory
from shared_context_server.services.context import Services
from shared_context_server.storage.contract import MemoryListing
from shared_context_server.tools.arguments import (
    AnyJson,
    Arguments,
    Cursor,
    FencingToken,
    IdempotencyKey,
    Integer,
    JsonArgument,
    JsonMembers,
    LeaseName,
    MemoryKey,
    Metadata,
    Result,
    SessionId,
    Time,
)
from shared_context_server.tools.leases import fence_of
from shared_context_server.tools.registry import READS, REMOVES, Call, Hints, Tool

TEN_YEARS_S = 315_360_000

Scope = Annotated[MemoryScope, Field(description="shared: all who may read the session.")]
ExpectedVersion = Annotated[Integer, Field(ge=0, le=2**63 - 1)]


class SetMemory(Arguments):
    null_is_a_value: ClassVar[frozenset[str]] = frozenset({"value"})

    key: MemoryKey
    value: JsonArgument = None
    session_id: Annotated[SessionId | None, Field(description="Default: no session.")] = None
    scope: Scope = MemoryScope.PRIVATE
    expires_in: Annotated[Integer, Field(ge=1, le=TEN_YEARS_S, description="Seconds.")] | None = (
        None
    )
    metadata: Metadata | None = None
    mode: Annotated[
        MemoryMode,
        Field(
            description="merge: an object as JSON merge patch. append: to a list or text. increment: by value."
        ),
    ] = MemoryMode.REPLACE
    expected_version: Annotated[ExpectedVersion | None, Field(description="0: must not exist.")] = (
        None
    )
    idempotency_key: IdempotencyKey | None = None
    lease: Annotated[
        LeaseName | None, Field(description="Refuse unless you hold it (in session_id).")
    ] = None
    fencing_token: FencingToken | None = None


class MemorySet(Result):
    key: str
    version: int
    scope: MemoryScope
    session_id: str | None
    expires_at: Time | None
    duplicate: bool


class GetMemory(Arguments):
    key: MemoryKey
    session_id: SessionId | None = None
    scope: MemoryScope = MemoryScope.PRIVATE


class MemoryValue(Result):
    key: str
    value: AnyJson
    version: int
    scope: MemoryScope
    session_id: str | None
    metadata: JsonMembers
    created_at: Time
    updated_at: Time
    updated_by: str
    expires_at: Time | None


class ListMemory(Arguments):
    session_id: SessionId | None = None
    scope: MemoryScope = MemoryScope.PRIVATE
    prefix: Annotated[str, Field(max_length=255)] = ""
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 50
    cursor: Cursor | None = None


class MemoryItem(BaseModel):
    key: str
    version: int
    metadata: JsonMembers
    size_bytes: int
    created_at: Time
    updated_at: Time
    updated_by: str
    expires_at: Time | None


class MemoryList(Result):
    entries: list[MemoryItem]
    count: int
    next_cursor: str | None


class DeleteMemory(Arguments):
    key: MemoryKey
    session_id: SessionId | None = None
    scope: MemoryScope = MemoryScope.PRIVATE
    expected_version: ExpectedVersion | None = None


class MemoryDeleted(Result):
    key: str
    deleted: bool


def _address(call: Call, arguments: SetMemory | GetMemory | DeleteMemory) -> MemoryAddress:
    return policy.memory_address(call.caller, arguments.key, arguments.session_id, arguments.scope)


def memory_value(entry: MemoryEntry) -> MemoryValue:
    """Return an entry with its value as every surface shows it."""
    return MemoryValue(
        key=entry.address.key,
        value=entry.value,
        version=entry.version,
        scope=entry.address.scope,
        session_id=entry.address.session_id,
        metadata=entry.metadata,
        created_at=entry.created_at,
        updated_at=entry.updated_at,
        updated_by=entry.updated_by,
        expires_at=entry.expires_at,
    )


def memory_list(page: memory.MemoryPage) -> MemoryList:
    """Return a listing as every surface shows it."""
    return MemoryList(
        entries=[_memory_item(listing) for listing in page.entries],
        count=len(page.entries),
        next_cursor=page.next_cursor,
    )


def _memory_item(listing: MemoryListing) -> MemoryItem:
    return MemoryItem(
        key=listing.address.key,
        version=listing.version,
        metadata=listing.metadata,
        size_bytes=listing.size_bytes,
        created_at=listing.created_at,
        updated_at=listing.updated_at,
        updated_by=listing.updated_by,
        expires_at=listing.expires_at,
    )


async def set_memory(services: Services, call: Call, arguments: SetMemory) -> MemorySet:
    """Store a JSON value under a key, for yourself or, with scope shared, for others. Returns its
    version, from 1. With expected_version, a value that others have changed is a CONFLICT and stays."""
    written = await memory.set_memory(
        services,
        call.caller,
        _address(call, arguments),
        memory.MemoryChange(
            mode=arguments.mode,
            value=arguments.value,
            is_value_given="value" in arguments.model_fields_set,
            metadata=arguments.metadata,
            expires_in=arguments.expires_in,
            expected_version=arguments.expected_version,
        ),
        arguments.idempotency_key,
        fence_of(arguments.lease, arguments.fencing_token),
    )
    entry = written.entry
    return MemorySet(
        key=entry.address.key,
        version=entry.version,
        scope=entry.address.scope,
        session_id=entry.address.session_id,
        expires_at=entry.expires_at,
        duplicate=written.duplicate,
    )


async def get_memory(services: Services, call: Call, arguments: GetMemory) -> MemoryValue:
    """Read the value under a key, with its version and who stored it. Shared ones need scope=shared."""
    return memory_value(await memory.get_memory(services, call.caller, _address(call, arguments)))


async def list_memory(services: Services, call: Call, arguments: ListMemory) -> MemoryList:
    """Find keys: with versions, sizes and metadata, without values."""
    return memory_list(
        await memory.list_memory(
            services,
            call.caller,
            session_id=arguments.session_id,
            scope=arguments.scope,
            prefix=arguments.prefix,
            limit=arguments.limit,
            cursor=arguments.cursor,
        )
    )


async def delete_memory(services: Services, call: Call, arguments: DeleteMemory) -> MemoryDeleted:
    """Delete the value under a key; with expected_version only if it is still that one."""
    await memory.delete_memory(
        services, call.caller, _address(call, arguments), arguments.expected_version
    )
    return MemoryDeleted(key=arguments.key, deleted=True)


TOOLS = (
    Tool(
        "set_memory",
        SetMemory,
        MemorySet,
        set_memory,
        Permission.WRITE,
        Hints(destructive=True),
    ),
    Tool("get_memory", GetMemory, MemoryValue, get_memory, Permission.READ, READS),
    Tool("list_memory", ListMemory, MemoryList, list_memory, Permission.READ, READS),
    Tool("delete_memory", DeleteMemory, MemoryDeleted, delete_memory, Permission.WRITE, REMOVES),
)
