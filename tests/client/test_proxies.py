"""Servers on this machine are asked directly, whatever proxy the environment names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared_context_client import (
    Breaker,
    CircuitOpen,
    Retries,
    ServerUnavailable,
    SharedContextClient,
    SyncSharedContextClient,
)
from shared_context_client.integrations.toolset import call_tool, select_tools
from tests.client.conftest import API_KEY, Relay, make_client

PROXY = Path(__file__).with_name("refusing_proxy.py")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
ELSEWHERE = "http://shared-context.invalid:23456"


class Proxy:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROXY)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def stop(self) -> list[str]:
        """End it; the request lines it has seen."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=30)
        return output.splitlines()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that the environment names for everything."""
    proxy = Proxy()
    for name in PROXY_VARIABLES:
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield proxy
    proxy.stop()


async def test_a_server_on_this_machine_is_not_asked_for_through_a_proxy(
    proxy: Proxy, server_url: str
) -> None:
    port = server_url.rsplit(":", 1)[1]
    for url in (server_url, f"http://localhost:{port}", f"http://LOCALHOST:{port}/mcp"):
        async with make_client(url, retries=Retries(deadline_s=0)) as client:
            made = await client.create_session("Direct")
            async with client.batch() as batch:
                batch.add_message(made.session_id, "hello")
            assert [m.content async for m in _first(client, made.session_id)] == ["hello"]
    assert proxy.stop() == []


async def _first(client: SharedContextClient, session_id: str):  # type: ignore[no-untyped-def]
    messages = client.session(session_id).follow(after_seq=0)
    yield await anext(messages)
    await messages.aclose()


def test_nor_by_the_sync_client_and_the_adapters(proxy: Proxy, server_url: str) -> None:
    with SyncSharedContextClient(
        server_url, api_key=API_KEY, agent_id="alice", retries=Retries(deadline_s=0)
    ) as client:
        assert client.create_session("Direct").session_id
        (tool,) = select_tools(["list_sessions"])
        assert call_tool(client, tool, {})
    assert proxy.stop() == []


async def test_a_server_elsewhere_is_asked_for_through_the_proxy(proxy: Proxy) -> None:
    async with make_client(ELSEWHERE, retries=Retries(deadline_s=0)) as client:
        with pytest.raises(ServerUnavailable, match="502"):
            await client.list_sessions()
    assert proxy.stop() == [f"POST {ELSEWHERE}/mcp/tool/list_sessions HTTP/1.1"]


async def test_an_open_circuit_tells_the_last_cause(proxy: Proxy) -> None:
    once = Retries(deadline_s=0)
    async with make_client(ELSEWHERE, retries=once, breaker=Breaker(failures=1)) as client:
        with pytest.raises(ServerUnavailable):
            await client.list_sessions()
        with pytest.raises(CircuitOpen) as refused:
            await client.list_sessions()
    assert "HTTP 502 from what stands before the server." in str(refused.value)
    assert isinstance(refused.value.__cause__, ServerUnavailable)
    assert refused.value.__cause__.status == 502


async def test_a_call_that_is_repeated_until_its_deadline_ends_with_the_cause(
    relay: Relay,
) -> None:
    retries = Retries(deadline_s=1, first_pause_s=0.01, longest_pause_s=0.01)
    breaker = Breaker(failures=2, open_s=0.1, longest_open_s=0.1)
    async with make_client(relay.url, retries=retries, breaker=breaker) as client:
        await relay.stop()
        with pytest.raises(ServerUnavailable) as failed:
            await client.list_sessions()
    assert not isinstance(failed.value, CircuitOpen)  # which says that the call was not sent
    assert "No answer: " in str(failed.value)
