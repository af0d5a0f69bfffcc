"""Tools for leases, and the lease arguments of writing tools."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Permission
from shared_context_server.path_patterns import MAX_PATTERN_CHARS, MAX_PATTERNS
from shared_context_server.services import leases
from shared_context_server.services.context import Services
from shared_context_server.storage.contract import Fence
from shared_context_server.tools.arguments import (
    Arguments,
    Cursor,
    FencingToken,
    Instance,
    Integer,
    LeaseName,
    Number,
    Result,
    SessionId,
    Time,
    is_false,
)
from shared_context_server.tools.registry import READS, SETS, Call, Tool

ONE_DAY_S = 86_400
Paths = Annotated[list[str], Field(exclude_if=is_false)]


class AcquireLease(Arguments):
    name: LeaseName
    session_id: Annotated[SessionId | None, Field(description="Default: server-wide.")] = None
    ttl_seconds: Annotated[Integer, Field(ge=1, le=ONE_DAY_S)] = 60
    wait_seconds: Annotated[
        Number, Field(ge=0, le=120, description="How long to wait for the holder.")
    ] = 0
    paths: Annotated[
        list[Annotated[str, Field(max_length=MAX_PATTERN_CHARS)]] | None,
        Field(
            max_length=MAX_PATTERNS,
            description="Globs such as src/**: also refused if others hold overlapping ones.",
        ),
    ] = None


class LeaseAcquired(Result):
    acquired: bool
    name: str
    session_id: str | None
    fencing_token: int | None
    holder: str | None
    expires_at: Time
    instance: Instance = ""
    paths: Paths = []


class ReleaseLease(Arguments):
    name: LeaseName
    session_id: SessionId | None = None
    fencing_token: FencingToken


class LeaseReleased(Result):
    released: bool
    name: str
    session_id: str | None


class ListLeases(Arguments):
    session_id: SessionId | None = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = leases.DEFAULT_LISTED
    cursor: Cursor | None = None


class LeaseItem(BaseModel):
    name: str
    session_id: str | None
    fencing_token: int
    holder: str
    acquired_at: Time
    expires_at: Time
    instance: Instance = ""
    paths: Paths = []


class LeaseList(Result):
    leases: list[LeaseItem]
    count: int
    next_cursor: str | None


def fence_of(lease: str | None, fencing_token: int | None) -> Fence | None:
    """Return the fence of a write's two arguments. Raises InvalidArgument naming the missing one."""
    if lease is None and fencing_token is None:
        return None
    if lease is None:
        raise InvalidArgument(
            "fencing_token was given without lease. Send the name of the lease too.", field="lease"
        )
    if fencing_token is None:
        raise InvalidArgument(
            "lease was given without fencing_token. Send the one that acquire_lease returned.",
            field="fencing_token",
        )
    return Fence(lease, fencing_token)


def lease_list(page: leases.LeasePage) -> LeaseList:
    """Return a page of leases as every surface shows it."""
    items = [
        LeaseItem(
            name=lease.name,
            session_id=lease.session_id,
            fencing_token=lease.fencing_token,
            holder=lease.holder,
            instance=lease.instance,
            paths=list(lease.paths),
            acquired_at=lease.acquired_at,
            expires_at=lease.expires_at,
        )
        for lease in page.leases
    ]
    return LeaseList(leases=items, count=len(items), next_cursor=page.next_cursor)


async def acquire_lease(services: Services, call: Call, arguments: AcquireLease) -> LeaseAcquired:
    """Hold a name exclusively for ttl_seconds, before work that only one agent may do; call again to
    renew. acquired=false: holder has it until expires_at. Pass lease and fencing_token to your
    writes: they are refused once you have lost the lease."""
    attempt = await leases.acquire_lease(
        services,
        call.caller,
        leases.LeaseRequest(
            session_id=arguments.session_id,
            name=arguments.name,
            ttl_seconds=arguments.ttl_seconds,
            wait_seconds=arguments.wait_seconds,
            paths=arguments.paths,
        ),
        call.report_progress,
    )
    lease = attempt.lease
    is_told = attempt.is_acquired or policy.may_read(call.caller)
    return LeaseAcquired(
        acquired=attempt.is_acquired,
        name=lease.name if is_told else arguments.name,
        session_id=lease.session_id,
        fencing_token=lease.fencing_token if attempt.is_acquired else None,
        holder=lease.holder if is_told else None,
        instance=lease.instance if is_told else "",
        paths=list(lease.paths) if is_told else [],
        expires_at=lease.expires_at,
    )


async def release_lease(services: Services, call: Call, arguments: ReleaseLease) -> LeaseReleased:
    """Release a lease; released is false if you no longer held it."""
    is_released = await leases.release_lease(
        services,
        call.caller,
        session_id=arguments.session_id,
        name=arguments.name,
        fencing_token=arguments.fencing_token,
    )
    return LeaseReleased(released=is_released, name=arguments.name, session_id=arguments.session_id)


async def list_leases(services: Services, call: Call, arguments: ListLeases) -> LeaseList:
    """See who holds which names, and until when: in a session, or server-wide."""
    return lease_list(
        await leases.list_leases(
            services,
            call.caller,
            arguments.session_id,
            limit=arguments.limit,
            cursor=arguments.cursor,
        )
    )


TOOLS = (
    Tool(
        "acquire_lease",
        AcquireLease,
        LeaseAcquired,
        acquire_lease,
        Permission.WRITE,
        SETS,
        is_core=False,
        is_waiting=True,
    ),
    Tool(
        "release_lease",
        ReleaseLease,
        LeaseReleased,
        release_lease,
        Permission.WRITE,
        SETS,
        is_core=False,
    ),
    Tool("list_leases", ListLeases, LeaseList, list_leases, Permission.READ, READS, is_core=False),
)
