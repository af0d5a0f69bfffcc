"""Leases: acquire, release and list exclusive rights for a limited time, with fencing tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import anyio

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument, SessionClosed, SharedContextError
from shared_context_server.models import (
    Caller,
    Event,
    EventKind,
    Lease,
    Permission,
    Session,
    Waiting,
)
from shared_context_server.path_patterns import PatternError, normalize_patterns
from shared_context_server.services.context import Services
from shared_context_server.services.follow import Follow, ReportProgress
from shared_context_server.services.paging import (
    decode_cursor,
    encode_cursor,
    from_microseconds,
    to_microseconds,
)
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import LeaseAttempt, SessionGuard
from shared_context_server.storage.rules.tasks import is_of_task

DEFAULT_LISTED = 100


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A request for a lease. `session_id` None: a server-wide lease. `paths`: see path_patterns; None
    leaves those of a lease that is renewed."""

    session_id: str | None
    name: str
    ttl_seconds: float
    wait_seconds: float
    paths: Sequence[str] | None = None


async def acquire_lease(
    services: Services,
    caller: Caller,
    request: LeaseRequest,
    report_progress: ReportProgress | None = None,
) -> LeaseAttempt:
    """Take or renew the lease, waiting up to `wait_seconds` for another holder's to end. Waiters
    are served in no particular order.

    Raises SessionClosed or SessionNotFound when the session is closed or deleted meanwhile,
    Unauthenticated when the caller's token or key has ended, and Unavailable when the server is
    stopping.
    """
    policy.require_permission(caller, Permission.WRITE)
    _require_not_of_task(request.session_id, request.name)
    if request.paths is not None:
        request = replace(request, paths=_normalize(request.paths))
    if request.wait_seconds == 0:
        return await _try(services, caller, request)
    with (
        services.slots.take(caller),
        services.presence.wait(
            caller, Waiting("lease", request.session_id, request.name)
        ) as show_waiting,
        services.bus.subscribe(_concerns(request), session_id=request.session_id) as subscription,
    ):
        follow = Follow(services, caller, subscription, request.wait_seconds, report_progress)
        attempt = None
        async for _ in follow:
            await follow.require_current()  # before the attempt, because it writes
            attempt = await _try(services, caller, request)
            if attempt.is_acquired:
                break
            follow.look_again_at = attempt.lease.expires_at  # an expiry has no event
            # With paths, this may be a lease of another name.
            show_waiting(Waiting("lease", request.session_id, attempt.lease.name))
        assert attempt is not None  # because the loop begins with an attempt
        return attempt


async def _try(services: Services, caller: Caller, request: LeaseRequest) -> LeaseAttempt:
    """Make one attempt. If the call is cancelled while it is written, the lease is released again,
    because nobody would know of it."""
    attempting = asyncio.ensure_future(
        services.store.leases.acquire(
            request.session_id,
            request.name,
            caller,
            ttl=timedelta(seconds=request.ttl_seconds),
            now=utc_now(),
            guard=_guard(policy.require_session_write, caller, request.session_id),
            paths=None if request.paths is None else tuple(request.paths),
        )
    )
    try:
        attempt = await asyncio.shield(attempting)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True), suppress(SharedContextError):
            attempt = await attempting
            if attempt.is_acquired and not attempt.is_renewal:
                await _give_back(services, caller, attempt.lease)
        raise
    if attempt.is_acquired:
        services.bus.publish(_changed(request.session_id, request.name))
    return attempt


async def _give_back(services: Services, caller: Caller, lease: Lease) -> None:
    """Release the lease, unless another call of the same agent has renewed it since."""
    await services.store.leases.release(
        lease.session_id,
        lease.name,
        caller,
        lease.fencing_token,
        now=utc_now(),
        guard=_guard(_require_release, caller, lease.session_id),
        expires_at=lease.expires_at,
    )
    services.bus.publish(_changed(lease.session_id, lease.name))


async def release_lease(
    services: Services, caller: Caller, *, session_id: str | None, name: str, fencing_token: int
) -> bool:
    """Release the caller's lease; return False if it had ended already. Works in closed sessions
    too."""
    policy.require_permission(caller, Permission.WRITE)
    _require_not_of_task(session_id, name)
    is_released = await services.store.leases.release(
        session_id,
        name,
        caller,
        fencing_token,
        now=utc_now(),
        guard=_guard(_require_release, caller, session_id),
    )
    if is_released:
        services.bus.publish(_changed(session_id, name))
    return is_released


@dataclass(frozen=True, slots=True)
class LeasePage:
    leases: list[Lease]
    next_cursor: str | None


async def list_leases(
    services: Services,
    caller: Caller,
    session_id: str | None,
    *,
    limit: int = DEFAULT_LISTED,
    cursor: str | None = None,
) -> LeasePage:
    """Return one page of the leases held now, by name: of the session, or server-wide."""
    policy.require_permission(caller, Permission.READ)
    found = await services.store.leases.list_held(
        session_id,
        limit=limit + 1,
        after_name="" if cursor is None else str(decode_cursor(cursor, str)[0]),
        now=utc_now(),
        guard=_guard(policy.require_session_read, caller, session_id),
    )
    page = found[:limit]
    return LeasePage(page, encode_cursor(page[-1].name) if len(found) > limit else None)


async def list_visible_leases(
    services: Services, caller: Caller, *, limit: int = DEFAULT_LISTED, cursor: str | None = None
) -> LeasePage:
    """Return one page of the leases held now, server-wide and of all sessions that the caller may see:
    first those that end first."""
    policy.require_permission(caller, Permission.READ)
    after = None
    if cursor is not None:
        moment, session_id, name = decode_cursor(cursor, int, str, str)
        after = from_microseconds(int(str(moment))), str(session_id), str(name)
    found = await services.store.leases.list_visible(
        caller, limit=limit + 1, after=after, now=utc_now()
    )
    page = found[:limit]
    if len(found) <= limit:
        return LeasePage(page, None)
    last = page[-1]
    ends_us = to_microseconds(last.expires_at)
    return LeasePage(page, encode_cursor(ends_us, last.session_id or "", last.name))


def _normalize(paths: Sequence[str]) -> tuple[str, ...]:
    try:
        return normalize_patterns(paths)
    except PatternError as exc:
        raise InvalidArgument(
            f"paths: {exc}.",
            field="paths",
            suggestion='Give patterns such as "src/parser/**" or "docs/*.md".',
        ) from exc


def _require_not_of_task(session_id: str | None, name: str) -> None:
    """Raise InvalidArgument for a lease that only claims of a task may hold."""
    if session_id is not None and is_of_task(name):
        raise InvalidArgument(
            f"The lease {name!r} belongs to a task.",
            field="name",
            suggestion="Use claim_task to hold or renew it, and finish_task to end it.",
        )


def _require_release(caller: Caller, session: Session) -> None:
    with suppress(SessionClosed):
        policy.require_session_write(caller, session)


def _guard(
    rule: Callable[[Caller, Session], None], caller: Caller, session_id: str | None
) -> SessionGuard | None:
    return None if session_id is None else partial(rule, caller)


def _concerns(request: LeaseRequest) -> Callable[[Event], bool]:
    """Return a predicate: whether an event may free the lease or end the wait."""

    def concerns(event: Event) -> bool:
        if event.session_id != request.session_id:
            return False
        if event.kind is EventKind.LEASE_CHANGED:
            return bool(request.paths) or event.name == request.name
        return event.kind in (EventKind.SESSION_CLOSED, EventKind.SESSION_DELETED)

    return concerns


def _changed(session_id: str | None, name: str) -> Event:
    return Event(EventKind.LEASE_CHANGED, session_id, name=name)
