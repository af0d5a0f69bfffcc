"""Compare the counters of a database with what is stored, and mend them, while servers use it."""

from __future__ import annotations

from shared_context_server.storage.contract import Miscount
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.rules.usage import compare_counters, find_statements

_COMPARE = compare_counters("octet_length({})".format)


async def recount(connection: Connection, *, mends: bool) -> list[Miscount]:
    """Find the counters that are wrong, and mend them in one transaction."""
    rows = await connection.fetch(_COMPARE, timeout=None)
    found = [Miscount(*row) for row in rows]
    if mends:
        async with connection.transaction():
            for miscount in found:
                for sql in find_statements(miscount):
                    await connection.execute(*Statement(sql)(**miscount._asdict()))
    return found
