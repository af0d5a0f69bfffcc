"""create_clock_server: the time without the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared_context_server.clock.layout import clock_segment_name
from shared_context_server.embed import McpServerAdapter, create_clock_server
from shared_context_server.errors import ConfigurationError
from tests.clock.daemons import (
    list_shared,
    own_prefix,
    run_daemon_process,
    run_restless_writer,
    stop_within_a_write,
)
from tests.embed.conftest import EmbeddedSurface, request


@pytest.fixture
def prefix() -> Iterator[str]:
    with own_prefix() as prefix:
        yield prefix


async def test_it_has_the_clock_tools_only_and_needs_no_data_dir(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "untouched"))
    async with McpServerAdapter(create_clock_server(prefix=prefix)) as adapter:
        listed = await adapter.handle_message(request(1, "tools/list"))
        assert listed is not None
        assert [tool["name"] for tool in listed["result"]["tools"]] == [
            "get_time",
            "get_temperature",
            "get_humidity",
            "get_all_sensors",
        ]
    assert not (tmp_path / "untouched").exists()


async def test_two_agents_may_share_an_entry_and_end_one_by_one(prefix: str) -> None:
    entry = create_clock_server(prefix=prefix)
    with run_daemon_process(prefix):
        async with McpServerAdapter(entry) as first, McpServerAdapter(entry) as second:
            for adapter in (first, second):
                clock = EmbeddedSurface(adapter)
                assert (await clock.call("get_time"))["source"] == "shared_memory"
            await first.close()
            assert (await EmbeddedSurface(second).call("get_time"))["source"] == "shared_memory"


async def test_it_tells_the_daemons_time_each_time_it_is_started(prefix: str) -> None:
    entry = create_clock_server("sidecar", prefix=prefix)
    assert entry["name"] == "sidecar"
    with run_daemon_process(prefix, "--source", "simulated"):
        for _ in range(2):
            async with McpServerAdapter(entry) as adapter:
                clock = EmbeddedSurface(adapter)
                assert (await clock.call("get_time"))["source"] == "shared_memory"
                assert (await clock.call("get_temperature"))["simulated"] is True
                assert (await clock.call("get_humidity"))["unit"] == "%"
                assert "cpu" in (await clock.call("get_all_sensors"))["sensors"]


async def test_without_a_daemon_it_says_so(prefix: str) -> None:
    async with McpServerAdapter(create_clock_server(prefix=prefix)) as adapter:
        clock = EmbeddedSurface(adapter)
        assert (await clock.call("get_time"))["source"] == "system"
        failed = await clock.call("get_temperature")
        assert (failed.is_error, failed["code"]) == (True, "CLOCK_NOT_RUNNING")


async def test_an_unknown_argument_is_refused_by_name(prefix: str) -> None:
    async with McpServerAdapter(create_clock_server(prefix=prefix)) as adapter:
        failed = await EmbeddedSurface(adapter).call("get_time", zone="UTC")
        assert (failed["code"], failed["details"]["field"]) == ("INVALID_ARGUMENT", "zone")


def test_a_prefix_that_no_segment_can_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        create_clock_server(prefix="a/b")


def test_an_owner_who_is_no_user_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="owner"):
        create_clock_server(owner="nobody of this name")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
async def test_the_clock_of_another_user_is_believed_if_he_is_named(prefix: str) -> None:
    with run_daemon_process(prefix):
        for path in list_shared(prefix):
            os.chown(path, 12345, 12345)
        for owner, source in ((None, "system"), (12345, "shared_memory")):
            entry = create_clock_server(prefix=prefix, owner=owner)
            async with McpServerAdapter(entry) as adapter:
                assert (await EmbeddedSurface(adapter).call("get_time"))["source"] == source


async def test_a_daemon_that_dies_within_a_write_is_stale(prefix: str) -> None:
    segment = clock_segment_name(prefix)
    async with McpServerAdapter(create_clock_server(prefix=prefix)) as adapter:
        agent = EmbeddedSurface(adapter)
        with run_restless_writer(segment) as writer:
            assert (await agent.call("get_time"))["source"] == "shared_memory"
            stop_within_a_write(writer, segment)
        while (answer := await agent.call("get_time"))["source"] != "system":
            assert not answer.is_error
        assert "has stopped" in answer["hint"]
