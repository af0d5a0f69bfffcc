"""Two agents, each with the whole server in its own process's memory, share a session.

`python examples/embedded_agent.py` needs no model: what a model would call is called here. With
one, and `pip install '.[agent]'` in the checkout, an agent is three lines:

    from claude_agent_sdk import query
    from shared_context_server.embed import agent_options

    options = agent_options(agent_id="alice", data_dir="./agents", timing=True)
    async for message in query(prompt="Create a session and say hello in it.", options=options):
        print(message)
"""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

from shared_context_server.embed import McpServerAdapter, create_sdk_server

Message = dict[str, Any]


async def call(agent: McpServerAdapter, tool: str, **arguments: Any) -> Message:
    """One tool call; raises RuntimeError for a failure, with what the tool says of it."""
    params = {"name": tool, "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": params}
    answer = await agent.handle_message(message)
    assert answer is not None
    if "error" in answer or answer["result"]["isError"]:
        raise RuntimeError(answer)
    content: Message = answer["result"]["structuredContent"]
    return content


async def review(bob: McpServerAdapter, session_id: str) -> None:
    """Wait for work without polling, and answer it."""
    news = await call(bob, "wait_for_messages", session_id=session_id, timeout_seconds=30)
    for message in news["messages"]:
        print(f"bob reads from {message['sender']}: {message['content']}")
    await call(bob, "add_message", session_id=session_id, content="Looks right to me.")


async def main() -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        servers = [create_sdk_server(agent_id=name, data_dir=data_dir) for name in ("alice", "bob")]
        async with McpServerAdapter(servers[0]) as alice, McpServerAdapter(servers[1]) as bob:
            made = await call(alice, "create_session", purpose="Review the release notes")
            session_id = made["session_id"]
            reviewing = asyncio.create_task(review(bob, session_id))
            text = "The notes are ready for review."
            await call(alice, "add_message", session_id=session_id, content=text)
            await reviewing
            seen = await call(alice, "get_messages", session_id=session_id)
            for message in seen["messages"]:
                print(f"{message['seq']}. {message['sender']}: {message['content']}")


if __name__ == "__main__":
    asyncio.run(main())
