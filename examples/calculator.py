"""Four plain functions as tools of a server inside this process.

`python examples/calculator.py` plays the command line's part, so it needs no model. With one:

    from claude_agent_sdk import ClaudeAgentOptions, query

    options = ClaudeAgentOptions(
        mcp_servers={"calculator": calculator},
        allowed_tools=["mcp__calculator__add", "mcp__calculator__divide"],
    )
    async for message in query(prompt="What is 355 divided by 113?", options=options):
        print(message)
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastmcp.exceptions import ToolError

from shared_context_server.embed import ControlRouter, tool_server


def add(a: float, b: float) -> float:
    """The sum of a and b."""
    return a + b


def subtract(a: float, b: float) -> float:
    """What is left of a without b."""
    return a - b


def multiply(a: float, b: float) -> float:
    """The product of a and b."""
    return a * b


def divide(a: float, b: float) -> float:
    """How often b fits into a."""
    if b == 0:  # any exception makes an error result; a ToolError is not logged with its traceback
        raise ToolError("Cannot divide by zero.")
    return a / b


calculator = tool_server("calculator", tools=[add, subtract, multiply, divide])


async def call(router: ControlRouter, tool: str, a: float, b: float) -> dict[str, Any]:
    """The tool's result, by a line as the command line writes it and one as it reads it."""
    params = {"name": tool, "arguments": {"a": a, "b": b}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body = {"subtype": "mcp_message", "server_name": "calculator", "message": message}
    line = json.dumps({"type": "control_request", "request_id": "1", "request": body})
    answer = await router.handle(line)
    assert answer is not None
    result: dict[str, Any] = json.loads(answer)["response"]["response"]["mcp_response"]["result"]
    return result


async def main() -> None:
    async with ControlRouter({"calculator": calculator}) as router:
        for tool, a, b in (
            ("add", 2, 3),
            ("subtract", 2, 3),
            ("multiply", 2, 3),
            ("divide", 355, 113),
            ("divide", 1, 0),
        ):
            result = await call(router, tool, a, b)
            kind = "error" if result["isError"] else "result"
            print(f"{tool}({a}, {b}): {kind} {result['content'][0]['text']}")


if __name__ == "__main__":
    asyncio.run(main())
