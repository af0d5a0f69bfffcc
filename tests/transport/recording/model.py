"""A stand-in for a model: agents that need one are told which tools to call, one a turn, then to stop.

It speaks as much of the three interfaces as Claude Code, Codex and Gemini CLI ask for. What these send to
an MCP server is their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Call = tuple[str, dict[str, Any]]
Event = tuple[str, dict[str, Any]]
USAGE = {"input_tokens": 1, "output_tokens": 1}


class ScriptedModel:
    """Asks for `calls`. The names of the tools are looked up among those that the agent offers."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._calls = list(calls)
        self.app = Starlette(
            routes=[
                Route("/v1/messages", self._messages, methods=["POST"]),
                Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
                Route("/v1/responses", self._responses, methods=["POST"]),
                Route("/v1beta/models/{rest:path}", self._generate, methods=["POST"]),
            ]
        )

    def _next(self, turn: int, offered: Iterable[str]) -> Call | None:
        """The call of this turn, under the name that the agent gives the tool."""
        names = list(offered)
        for name, arguments in self._calls[turn:]:
            for known in names:
                if known.endswith(name) and not known.endswith(f"batch_{name}"):
                    return known, arguments
        return None

    async def _messages(self, request: Request) -> Response:
        """Anthropic's Messages."""
        asked = await request.json()
        turn = json.dumps(asked.get("messages", [])).count('"tool_result"')
        call = self._next(turn, (tool["name"] for tool in asked.get("tools", [])))
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"]}
        if call is None:
            block: dict[str, Any] = {"type": "text", "text": "Done."}
            reason = "end_turn"
        else:
            block = {"type": "tool_use", "id": f"toolu_{turn}", "name": call[0], "input": call[1]}
            reason = "tool_use"
        if not asked.get("stream"):
            whole = {"content": [block], "stop_reason": reason, "usage": USAGE}
            return JSONResponse({**message, **whole})
        return _events(_stream_message(message, block, reason))

    async def _count(self, _request: Request) -> Response:
        return JSONResponse({"input_tokens": 1})

    async def _responses(self, request: Request) -> Response:
        """OpenAI's Responses, where the tools of an MCP server are a namespace."""
        asked = await request.json()
        turn = sum("call_output" in item.get("type", "") for item in asked["input"])
        offered: dict[str, str | None] = {}
        for tool in asked.get("tools", []):
            if tool.get("type") == "namespace":
                offered |= {inner["name"]: tool["name"] for inner in tool["tools"]}
            elif "name" in tool:
                offered[tool["name"]] = None
        call = self._next(turn, offered)
        if call is None:
            content = [{"type": "output_text", "text": "Done.", "annotations": []}]
            item: dict[str, Any] = {"type": "message", "role": "assistant", "content": content}
        else:
            item = {
                "type": "function_call",
                "call_id": f"call_{turn}",
                "name": call[0],
                "arguments": json.dumps(call[1]),
            }
            if (namespace := offered[call[0]]) is not None:
                item["namespace"] = namespace
        item |= {"id": f"item_{turn}", "status": "completed"}
        response = {"id": f"resp_{turn}", "object": "response", "output": [item]}
        usage = {**USAGE, "total_tokens": 2}
        kinds: tuple[Event, ...] = (
            ("response.created", {"response": {**response, "output": [], "status": "in_progress"}}),
            ("response.output_item.done", {"output_index": 0, "item": item}),
            (
                "response.completed",
                {"response": {**response, "status": "completed", "usage": usage}},
            ),
        )
        return _events(kinds)

    async def _generate(self, request: Request) -> Response:
        """Gemini's generateContent and streamGenerateContent."""
        asked = await request.json()
        turn = json.dumps(asked.get("contents", [])).count('"functionResponse"')
        offered = (
            declared["name"]
            for tool in asked.get("tools", [])
            for declared in tool.get("functionDeclarations", [])
        )
        call = self._next(turn, offered)
        if call is None:
            part: dict[str, Any] = {"text": '{"text": "Done.", "model_choice": "flash"}'}
        else:
            part = {"functionCall": {"name": call[0], "args": call[1]}}
        content = {"role": "model", "parts": [part]}
        answer = {
            "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {
                "promptTokenCount": 1,
                "candidatesTokenCount": 1,
                "totalTokenCount": 2,
            },
        }
        if not request.url.path.endswith(":streamGenerateContent"):
            return JSONResponse(answer)
        return Response(f"data: {json.dumps(answer)}\r\n\r\n", media_type="text/event-stream")


def _stream_message(message: dict[str, Any], block: dict[str, Any], reason: str) -> Iterator[Event]:
    start = {**message, "content": [], "stop_reason": None, "usage": USAGE}
    yield "message_start", {"message": start}
    if block["type"] == "text":
        empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        text = json.dumps(block["input"])
        empty = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": text}
    yield "content_block_start", {"index": 0, "content_block": empty}
    yield "content_block_delta", {"index": 0, "delta": delta}
    yield "content_block_stop", {"index": 0}
    yield "message_delta", {"delta": {"stop_reason": reason}, "usage": USAGE}
    yield "message_stop", {}


def _events(events: Iterable[Event]) -> Response:
    lines = (
        f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n" for kind, body in events
    )
    return Response("".join(lines), media_type="text/event-stream")
