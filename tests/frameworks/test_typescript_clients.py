"""Clients on the TypeScript SDKs, and Gemini CLI's way of reading answers, against the endpoint."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".venv-frameworks/typescript"
SDKS = ("sdk-1", "sdk-2", "sdk-of-gemini-cli")


def call(sdk: str, server: Any, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What a program on this SDK gets for each call."""
    node = shutil.which("node")
    assert node is not None
    asked = {
        "url": server.mcp_url,
        "headers": server.headers,
        "calls": [{"name": name, "arguments": arguments} for name, arguments in calls],
    }
    answer = subprocess.run(
        [node, str(HERE / "typescript/call.mjs"), str(INSTALLED), sdk],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.mark.parametrize("sdk", SDKS)
def test_a_refused_call_shows_the_server_s_error(server: Any, session_id: str, sdk: str) -> None:
    memory = {"key": f"version-{sdk}", "value": 1}
    answers = call(
        sdk,
        server,
        ("get_session", {"session_id": "session_none"}),
        ("set_memory", memory | {"expected_version": 0}),
        ("set_memory", memory | {"expected_version": 0}),
        ("add_message", {"session_id": session_id, "content": "x", "noSuch": 1}),
        ("addMessage", {}),
    )
    assert all("thrown" not in answer for answer in answers), answers
    results = [answer["result"] for answer in answers]
    assert [result.get("isError", False) for result in results] == [True, False, True, True, True]
    errors = [json.loads(result["content"][0]["text"]) for result in results if result["isError"]]
    assert [error["code"] for error in errors] == [
        "SESSION_NOT_FOUND",
        "CONFLICT",
        "INVALID_ARGUMENT",
        "TOOL_NOT_FOUND",
    ]
    assert errors[1]["details"]["current_version"] == 1
    assert errors[2]["details"]["field"] == "noSuch"


@pytest.mark.parametrize("sdk", SDKS)
def test_an_answer_has_structured_content(server: Any, session_id: str, sdk: str) -> None:
    added, read = call(
        sdk,
        server,
        ("add_message", {"session_id": session_id, "content": "From TypeScript."}),
        ("get_messages", {"session_id": session_id}),
    )
    assert added["result"]["structuredContent"]["seq"] == 1
    assert json.loads(read["result"]["content"][0]["text"]) == read["result"]["structuredContent"]
    assert read["result"]["structuredContent"]["messages"][0]["content"] == "From TypeScript."
