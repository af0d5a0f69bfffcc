"""What the conformance suite wants to find on a server: its tools, resources and prompts.

They are served beside ours, behind the same endpoint and middleware.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from typing import Any

from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.prompts import Message, PromptResult
from fastmcp.tools import Tool, ToolResult
from mcp_types import (
    AudioContent,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    PromptReference,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)


def _png() -> str:
    """One red pixel, base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0\xff\0\0")
    image = chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + image).decode()


def _wav() -> str:
    """Silence, base64."""
    samples = bytes(8)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples
    return base64.b64encode(struct.pack("<4sI", b"RIFF", len(body)) + body).decode()


PNG = _png()
WAV = _wav()
IMAGE = ImageContent(type="image", data=PNG, mime_type="image/png")


def text(value: str) -> TextContent:
    return TextContent(type="text", text=value)


def embedded(uri: str, content: str, mime_type: str = "text/plain") -> EmbeddedResource:
    resource = TextResourceContents(uri=uri, text=content, mime_type=mime_type)
    return EmbeddedResource(type="resource", resource=resource)


def add_fixtures(mcp: FastMCP[Any]) -> None:
    """Serve everything the suite asks for by name."""
    _add_contents(mcp)
    _add_notifications(mcp)
    _add_requests(mcp)
    _add_input_required(mcp)
    _add_resources(mcp)
    _add_prompts(mcp)
    mcp.add_tool(
        JsonSchemaTool(
            name="json_schema_2020_12_tool",
            description="For the conformance suite.",
            parameters=JSON_SCHEMA_2020_12,
        )
    )
    low_level = mcp._mcp_server
    ours = low_level.get_request_handler("completion/complete")
    assert ours is not None

    async def complete(context: Any, params: CompleteRequestParams) -> Any:
        ref = params.ref
        if isinstance(ref, PromptReference) and ref.name == "test_prompt_with_arguments":
            found = Completion(values=["paris", "park", "party"], total=3, has_more=False)
            return CompleteResult(completion=found)
        return await ours.handler(context, params)

    low_level.add_request_handler("completion/complete", CompleteRequestParams, complete)


def _add_contents(mcp: FastMCP[Any]) -> None:
    contents: dict[str, list[Any]] = {
        "test_simple_text": [text("This is a simple text response for testing.")],
        "test_image_content": [IMAGE],
        "test_audio_content": [AudioContent(type="audio", data=WAV, mime_type="audio/wav")],
        "test_embedded_resource": [
            embedded("test://embedded-resource", "This is an embedded resource content.")
        ],
        "test_multiple_content_types": [
            text("Multiple content types test:"),
            IMAGE,
            embedded(
                "test://mixed-content-resource",
                '{"test":"data","value":123}',
                "application/json",
            ),
        ],
    }
    for name, content in contents.items():
        mcp.add_tool(ContentTool.of(name, content))

    @mcp.tool(description="For the conformance suite.")
    def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")


class ContentTool(Tool):
    """Answers always the same."""

    answer: list[Any]

    @classmethod
    def of(cls, name: str, answer: list[Any]) -> ContentTool:
        return cls(
            name=name,
            description="For the conformance suite.",
            parameters={"type": "object", "properties": {}},
            answer=answer,
        )

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(content=self.answer)


JSON_SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


class JsonSchemaTool(Tool):
    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(content=[text(json.dumps(arguments))])


def _add_notifications(mcp: FastMCP[Any]) -> None:
    @mcp.tool(description="For the conformance suite.")
    async def test_tool_with_logging(ctx: Context) -> str:
        for message in ("started", "processing data", "completed"):
            head = "Tool" if message.startswith("processing") else "Tool execution"
            await ctx.info(f"{head} {message}")
            await asyncio.sleep(0.05)
        return "Tool execution completed successfully"

    @mcp.tool(description="For the conformance suite.")
    async def test_tool_with_progress(ctx: Context) -> str:
        for progress in (0, 50, 100):
            await ctx.report_progress(progress, 100, f"Completed step {progress} of 100")
            await asyncio.sleep(0.05)
        return "done"


def _add_requests(mcp: FastMCP[Any]) -> None:
    @mcp.tool(description="For the conformance suite.")
    async def test_sampling(prompt: str, ctx: Context) -> str:
        message = SamplingMessage(role="user", content=text(prompt))
        answer = await ctx.session.create_message(
            [message], max_tokens=100, related_request_id=ctx.request_id
        )
        return f"LLM response: {getattr(answer.content, 'text', '')}"

    async def elicit(ctx: Context, message: str, schema: dict[str, Any]) -> str:
        answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
        return f"action={answer.action}, content={json.dumps(answer.content)}"

    @mcp.tool(description="For the conformance suite.")
    async def test_elicitation(message: str, ctx: Context) -> str:
        properties = {
            "username": {"type": "string", "description": "User's response"},
            "email": {"type": "string", "description": "User's email address"},
        }
        schema = {"type": "object", "properties": properties, "required": ["username", "email"]}
        return f"User response: {await elicit(ctx, message, schema)}"

    @mcp.tool(description="For the conformance suite.")
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        statuses = ["active", "inactive", "pending"]
        properties = {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": statuses, "default": "active"},
            "verified": {"type": "boolean", "default": True},
        }
        schema = {"type": "object", "properties": properties, "required": []}
        return f"Elicitation completed: {await elicit(ctx, 'Please review', schema)}"

    @mcp.tool(description="For the conformance suite.")
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        plain = ["option1", "option2", "option3"]
        titled = [
            {"const": f"value{n}", "title": f"{nth} Option"}
            for n, nth in enumerate(("First", "Second", "Third"), 1)
        ]
        names = ["Option One", "Option Two", "Option Three"]
        properties = {
            "untitledSingle": {"type": "string", "enum": plain},
            "titledSingle": {"type": "string", "oneOf": titled},
            "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": names},
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
            "titledMulti": {"type": "array", "items": {"anyOf": titled}},
        }
        schema = {"type": "object", "properties": properties, "required": []}
        return f"Elicitation completed: {await elicit(ctx, 'Please choose', schema)}"


def _ask(message: str, field: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _answer_of(ctx: Context, name: str, field: str) -> Any:
    """What the client's user has answered; None if nothing, or something else."""
    answer = (ctx.input_responses or {}).get(name)
    content = getattr(answer, "content", None)
    return content.get(field) if isinstance(content, dict) else None


def _add_input_required(mcp: FastMCP[Any]) -> None:
    @mcp.tool(description="For the conformance suite.")
    async def test_input_required_result_elicitation(ctx: Context) -> Any:
        name = _answer_of(ctx, "user_name", "name")
        if isinstance(name, str):
            return f"Hello, {name}!"
        asked = _ask("What is your name?", "name")
        return InputRequiredResult(input_requests={"user_name": asked})

    @mcp.prompt(description="A prompt that asks the user.")
    async def test_input_required_result_prompt(ctx: Context) -> Any:
        found = _answer_of(ctx, "user_context", "context")
        if isinstance(found, str):
            return f"Use this context: {found}"
        asked = _ask("What context should the prompt use?", "context")
        return InputRequiredResult(input_requests={"user_context": asked})


def _add_resources(mcp: FastMCP[Any]) -> None:
    @mcp.resource("test://static-text", mime_type="text/plain", description="A static text.")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @mcp.resource("test://static-binary", mime_type="image/png", description="A static image.")
    def static_binary() -> bytes:
        return base64.b64decode(PNG)

    @mcp.resource("test://watched-resource", mime_type="text/plain", description="It may change.")
    def watched() -> str:
        return "Watched resource content"

    @mcp.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def _add_prompts(mcp: FastMCP[Any]) -> None:
    @mcp.prompt(description="A simple prompt.")
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @mcp.prompt(description="A prompt with arguments.")
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @mcp.prompt(description="A prompt with a resource.")
    def test_prompt_with_embedded_resource(resourceUri: str) -> PromptResult:  # noqa: N803
        resource = embedded(resourceUri, "Embedded resource content for testing.")
        return PromptResult(
            [Message(resource), Message("Please process the embedded resource above.")]
        )

    @mcp.prompt(description="A prompt with an image.")
    def test_prompt_with_image() -> PromptResult:
        return PromptResult([Message(IMAGE), Message("Please analyze the image above.")])
