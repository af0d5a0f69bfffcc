"""Read the audit log, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared_context_server import policy
from shared_context_server.models import AuditEntry, Caller, Permission
from shared_context_server.services.context import Services
from shared_context_server.services.paging import decode_cursor, encode_cursor
from shared_context_server.storage.contract import AuditChain, AuditQuery


@dataclass(frozen=True, slots=True)
class AuditPage:
    """`chain`: the ends of the hash chain; None if it was not asked for, or if no entry is chained."""

    entries: list[AuditEntry]
    next_cursor: str | None
    chain: AuditChain | None = None


async def get_audit_log(
    services: Services,
    caller: Caller,
    *,
    session_id: str | None,
    agent_id: str | None,
    event_type: str | None,
    start_time: datetime | None,
    limit: int,
    cursor: str | None = None,
    with_chain: bool = False,
) -> AuditPage:
    """Return one page of the audit log, newest first. Requires the permission admin."""
    policy.require_permission(caller, Permission.ADMIN)
    before_id = None if cursor is None else int(str(decode_cursor(cursor, int)[0]))
    query = AuditQuery(
        limit=limit + 1,
        session_id=session_id,
        agent_id=agent_id,
        event_type=event_type,
        start_time=start_time,
        before_id=before_id,
    )
    chain = None
    if with_chain:
        found, chain = await services.store.audit.list_with_chain(query)
    else:
        found = await services.store.audit.list_newest(query)
    page = found[:limit]
    next_cursor = encode_cursor(page[-1].id) if len(found) > limit else None
    return AuditPage([policy.hide_private_names(entry) for entry in page], next_cursor, chain)
