"""The time and the sensors as agents get them, from a real daemon through a real server."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.shared.exceptions import MCPError

from shared_context_server.clock import ClockReader
from shared_context_server.clock.layout import clock_segment_name, sensor_segment_name
from shared_context_server.server import Server
from tests.clock.daemons import (
    list_shared,
    own_prefix,
    run_daemon_process,
    run_restless_writer,
    stop_within_a_write,
)
from tests.settings import make_settings
from tests.surfaces.conftest import As, headers_of, serve
from tests.surfaces.test_mcp import client_of

TIME_TOOLS = ("get_time", "get_temperature", "get_humidity", "get_all_sensors")


@pytest.fixture
def prefix() -> Iterator[str]:
    with own_prefix() as prefix:
        yield prefix


@pytest.fixture
async def running(tmp_path: Path, prefix: str) -> AsyncIterator[tuple[Server, str]]:
    async with serve(make_settings(tmp_path / "data", clock_prefix=prefix)) as started:
        yield started


@pytest.fixture
def daemon(prefix: str) -> Iterator[subprocess.Popen[str]]:
    with run_daemon_process(prefix) as process:
        yield process


async def test_the_time_is_the_daemons(as_agent: As, daemon: object) -> None:
    alice = await as_agent("alice")
    first, now = await alice.call("get_time"), time.time()
    assert first["source"] == "shared_memory"
    assert abs(first["epoch_s"] - now) < 5
    assert datetime.fromisoformat(first["time"]).timestamp() == pytest.approx(
        first["epoch_s"], abs=1e-5
    )
    assert first["time"].endswith("Z")
    assert (first["stale"], first["synchronized"], first["hint"]) == (False, False, None)
    assert (first["earliest"], first["latest"]) == (None, None)  # nobody told the daemon the time
    assert 0 <= first["age_ms"] < 250
    second = await alice.call("get_time")
    assert second["epoch_s"] > first["epoch_s"]
    assert second["sequence"] >= first["sequence"]


async def test_without_a_daemon_the_time_is_the_systems_and_says_so(as_agent: As) -> None:
    answer = await (await as_agent("alice")).call("get_time")
    assert not answer.is_error
    assert (answer["source"], answer["stale"]) == ("system", True)
    assert abs(answer["epoch_s"] - time.time()) < 5
    assert (answer["age_ms"], answer["sequence"], answer["synchronized"]) == (None, None, False)
    assert "shared-context-server clock --prefix" in answer["hint"]


async def test_when_the_daemon_dies_the_time_is_the_systems_from_then_on(
    as_agent: As, daemon: subprocess.Popen[str], prefix: str
) -> None:
    alice = await as_agent("alice")
    assert (await alice.call("get_time"))["source"] == "shared_memory"
    daemon.kill()
    daemon.wait()
    wait_until_stale(prefix)
    answer = await alice.call("get_time")
    assert (answer["source"], answer["stale"]) == ("system", True)
    assert answer["age_ms"] >= 250
    assert "has stopped" in answer["hint"]


async def test_when_the_daemon_dies_within_a_write_every_way_of_asking_says_so(
    running: tuple[Server, str], as_agent: As, prefix: str
) -> None:
    _, url = running
    clock, sensors = clock_segment_name(prefix), sensor_segment_name(prefix)
    alice = await as_agent("alice")
    with run_restless_writer(clock) as keeper, run_restless_writer(sensors) as measurer:
        assert (await alice.call("get_time"))["source"] == "shared_memory"
        assert (await alice.call("get_temperature"))["valid"]
        stop_within_a_write(keeper, clock)
        stop_within_a_write(measurer, sensors)
    while (answer := await alice.call("get_time"))["source"] != "system":
        assert not answer.is_error
    assert answer["stale"]
    assert "has stopped" in answer["hint"]
    assert answer["sequence"] > 0
    while not (measured := await alice.call("get_temperature"))["stale"]:
        assert not measured.is_error
    assert (measured["value"], measured["valid"]) == (21.0, True)
    every = (await alice.call("get_all_sensors"))["sensors"]
    assert every["temperature"]["stale"]
    async with client_of(url, headers_of("alice")) as client:
        assert (await read_json(client, "clock://now"))["source"] == "system"
        assert (await read_json(client, "sensors://all"))["sensors"]["temperature"]["stale"]
    assert await measure_age_s(url) > 0.25


async def test_a_server_that_starts_after_a_death_within_a_write_names_the_command(
    running: tuple[Server, str], as_agent: As, prefix: str
) -> None:
    for segment in (clock_segment_name(prefix), sensor_segment_name(prefix)):
        with run_restless_writer(segment) as writer:
            stop_within_a_write(writer, segment)
    alice = await as_agent("alice")
    answer = await alice.call("get_time")
    assert (answer["source"], answer["age_ms"]) == ("system", None)
    assert "shared-context-server clock --prefix" in answer["hint"]
    refused = await alice.call("get_all_sensors")
    assert refused["code"] == "CLOCK_NOT_RUNNING"
    assert "in the middle of a write" in refused["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
async def test_the_clock_of_another_user_is_not_believed_unless_a_setting_names_him(
    tmp_path: Path, as_agent: As, url: str, daemon: object, prefix: str
) -> None:
    for path in list_shared(prefix):
        os.chown(path, 12345, 12345)
    alice = await as_agent("alice")
    answer = await alice.call("get_time")
    assert (answer["source"], answer["stale"]) == ("system", True)
    assert "CLOCK_OWNER=12345" in answer["hint"]
    refused = await alice.call("get_temperature")
    assert refused["code"] == "CLOCK_NOT_RUNNING"
    assert "CLOCK_OWNER=12345" in refused["error"]
    trusting = make_settings(tmp_path / "trusting", clock_prefix=prefix, clock_owner="12345")
    async with serve(trusting) as (_, other), httpx.AsyncClient(headers=headers_of("bob")) as http:
        told = (await http.post(f"{other}/mcp/tool/get_time", json={})).json()
    assert told["source"] == "shared_memory"


def wait_until_stale(prefix: str) -> None:
    deadline_s = time.monotonic() + 10
    with ClockReader(prefix) as clock:
        while not clock.now().stale:
            assert time.monotonic() < deadline_s


async def test_sensors_say_what_they_measure_and_what_they_lack(
    as_agent: As, daemon: object
) -> None:
    alice = await as_agent("alice")
    every = (await alice.call("get_all_sensors"))["sensors"]
    assert set(every) == {"temperature", "humidity", "cpu", "memory", "load1"}
    for tool, name, unit in (("temperature", "temperature", "°C"), ("humidity", "humidity", "%")):
        answer = await alice.call(f"get_{tool}")
        assert (answer["unit"], answer["valid"], answer["simulated"]) == (unit, True, True)
        assert isinstance(answer["value"], float)
        assert not answer["stale"]
        assert answer["age_ms"] >= 0
        assert every[name]["value"] == pytest.approx(answer["value"], abs=5)
    assert (every["cpu"]["value"], every["cpu"]["valid"]) == (None, False)


async def test_without_a_daemon_a_sensor_names_the_command_that_starts_it(
    as_agent: As, url: str, prefix: str
) -> None:
    alice = await as_agent("alice")
    for tool in set(TIME_TOOLS) - {"get_time"}:
        answer = await alice.call(tool)
        assert answer.is_error
        assert answer["code"] == "CLOCK_NOT_RUNNING"
        command = f"shared-context-server clock --prefix {prefix}"
        assert answer["details"]["command"] == command
        assert command in answer["suggestion"]
        assert answer["retryable"] is True
    async with httpx.AsyncClient(base_url=url, headers=headers_of("alice")) as http:
        refused = await http.post("/mcp/tool/get_temperature", json={})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0


async def test_the_anonymous_are_not_told_the_time(as_agent: As, daemon: object) -> None:
    nobody = await as_agent(None)
    for tool in TIME_TOOLS:
        assert (await nobody.call(tool))["code"] == "UNAUTHENTICATED"


async def read_json(client: Any, uri: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await client.read_resource(uri))[0].text)
    return found


async def test_resources_answer_as_the_tools_do(url: str, daemon: object) -> None:
    async with client_of(url, headers_of("alice")) as client:
        for uri, tool in (("clock://now", "get_time"), ("sensors://all", "get_all_sensors")):
            answer = await client.call_tool(tool, {})
            found = await read_json(client, uri)
            assert found.keys() == answer.structured_content.keys()  # type: ignore[union-attr]
        assert (await read_json(client, "clock://now"))["source"] == "shared_memory"


async def test_resources_are_refused_as_the_tools_are(url: str) -> None:
    async with client_of(url) as nobody:
        for uri in ("clock://now", "sensors://all"):
            with pytest.raises(MCPError) as caught:
                await nobody.read_resource(uri)
            assert caught.value.error.data["code"] == "UNAUTHENTICATED"
    async with client_of(url, headers_of("alice")) as alice:
        with pytest.raises(MCPError) as caught:
            await alice.read_resource("sensors://all")
        assert caught.value.error.data["code"] == "CLOCK_NOT_RUNNING"
        assert (await read_json(alice, "clock://now"))["source"] == "system"


async def measure_age_s(url: str) -> float:
    async with httpx.AsyncClient(base_url=url, headers=headers_of("alice")) as http:
        text = (await http.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("scs_clock_age_seconds ")]
    return float(line.split()[1])


async def test_metrics_tell_the_age_of_the_clock(url: str, daemon: object) -> None:
    assert 0 <= await measure_age_s(url) < 0.25


async def test_metrics_know_no_age_without_a_daemon(url: str) -> None:
    assert math.isnan(await measure_age_s(url))
