"""Uses a server as a program on the MCP SDK for Python does; runs where that SDK is installed.

Standard input: {"url", "headers", "session", "modes"}; each mode is a connection of its own.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

IS_SDK_2 = version("mcp").startswith("2.")


@asynccontextmanager
async def connect(url: str, headers: dict[str, str], mode: str) -> AsyncIterator[Any]:
    """What has the SDK's methods: the client of version 2, the session of version 1."""
    async with AsyncExitStack() as stack:
        if IS_SDK_2:
            import httpx2  # noqa: PLC0415 - only the one SDK has it
            from mcp import Client  # noqa: PLC0415
            from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers))
            transport = streamable_http_client(url, http_client=http)
            yield await stack.enter_async_context(Client(transport, mode=mode))
        else:
            from mcp import ClientSession  # noqa: PLC0415
            from mcp.client.streamable_http import streamablehttp_client  # noqa: PLC0415

            streams = await stack.enter_async_context(streamablehttp_client(url, headers=headers))
            session = await stack.enter_async_context(ClientSession(*streams[:2]))
            await session.initialize()
            yield session


async def ignore_progress(*_: Any) -> None:
    """Asked for, so that the client names a progress token."""


def list_steps(client: Any, session: str) -> list[Callable[[], Awaitable[Any]]]:
    call = client.call_tool
    wait = {"session_id": session, "timeout_seconds": 0.3}

    async def give_up() -> None:
        async with asyncio.timeout(0.1):
            await call("wait_for_messages", wait)

    return [
        client.send_ping,
        client.list_tools,
        lambda: call("list_sessions", {}),
        lambda: call("list_sessions"),
        lambda: call(
            "add_message", {"session_id": session, "content": "From Python: é \U0001f600"}
        ),
        lambda: call(
            "get_messages", {"session_id": session, "limit": 5}, progress_callback=ignore_progress
        ),
        lambda: call("add_message", {"session_id": session}),
        lambda: call("no_such_tool", {}),
        lambda: call("get_memory", {"key": "missing"}),
        client.list_resources,
        client.list_resource_templates,
        lambda: client.read_resource(f"session://{session}"),
        lambda: client.read_resource("session://session_none"),
        client.list_prompts,
        lambda: client.get_prompt("catch_up", {"session_id": session}),
        lambda: client.set_logging_level("info"),
        client.send_roots_list_changed,
        give_up,
        client.list_tools,
    ]


async def main() -> None:
    asked = json.load(sys.stdin)
    for mode in asked["modes"]:
        async with connect(asked["url"], asked["headers"], mode) as client:
            for number, step in enumerate(list_steps(client, asked["session"])):
                try:
                    await step()
                except Exception as exc:  # noqa: BLE001 - refusals are part of the recording
                    print(f"{mode or 'default'} step {number}: {exc!r}")


asyncio.run(main())
