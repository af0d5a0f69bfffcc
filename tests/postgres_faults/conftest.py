"""Two servers that several tests take the database away from, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.postgres_faults.replicas import Replicas, open_replicas


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    with open_replicas(tmp_path_factory.mktemp("faults"), 2) as replicas:
        yield replicas


@pytest.fixture
async def replicas(started: Replicas) -> AsyncIterator[Replicas]:
    """Two servers that are ready, before and after the test."""
    await started.recover()
    yield started
    await started.recover()
