"""The breaker by itself; with a server and a database that hangs: tests/postgres_faults."""

from __future__ import annotations

import asyncio

from shared_context_server.settings import Settings
from shared_context_server.storage.postgres.engine.circuit_breaker import CircuitBreaker
from shared_context_server.storage.postgres.engine.hosts import Connector
from tests.until import until


async def test_it_closes_again_whatever_its_question_comes_to(settings: Settings) -> None:
    """Asked at a URL that is none, which is no error of the database's."""
    connector = Connector("postgresql://127.0.0.1:nonsense/", settings)
    breaker = CircuitBreaker(connector, on_silent=lambda: None, on_answer=lambda: asyncio.sleep(0))
    breaker.open()
    breaker.start_probing()
    await until(lambda: not breaker.is_open)
    await breaker.aclose()
