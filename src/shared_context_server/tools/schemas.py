"""Make the JSON Schemas of arguments and results from their models.

There are two schemas of the arguments, with the same names, types and bounds. The request schema is
exact, for OpenAPI. The input schema is for MCP clients and models. It leaves out what the
converters of agent frameworks fail on, and what only makes it longer.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

JsonSchema = dict[str, Any]

# "Any JSON" in full, because autogen-ext refuses a schema without a type. Arrays have a type of
# items, without which the APIs of OpenAI and Gemini refuse the tool; mixed arrays are accepted too.
ANY_JSON: JsonSchema = {
    "anyOf": [
        {"type": "object"},
        *({"type": "array", "items": {"type": name}} for name in ("string", "number", "object")),
        *({"type": name} for name in ("string", "number", "boolean", "null")),
    ]
}
NO_NUL = r"^[^\x00]*$"  # PostgreSQL's text cannot hold U+0000

# Pydantic writes a bound that follows a validator function under its own name.
_KEYWORDS = {"ge": "minimum", "le": "maximum"}
_NOT_SHOWN = frozenset({"pattern", "additionalProperties"})  # to MCP clients; see input_schema


def request_schema(arguments: type[BaseModel]) -> JsonSchema:
    """Return the schema of the arguments exactly as they are checked, except that an empty text
    counts as a missing argument, and that numbers may be sent as texts."""
    schema = _generate(arguments)
    required = schema.get("required", [])
    schema["properties"] = {
        name: _state_nul(part) if name in required else _allow_null(_state_nul(part))
        for name, part in schema["properties"].items()
    }
    return schema


def input_schema(arguments: type[BaseModel]) -> JsonSchema:
    """Return the schema of the arguments for MCP clients.

    It has no additionalProperties, which google-genai cannot convert; unknown arguments and values
    are refused all the same. It has null only where that has a meaning, and no patterns, because
    regular expressions of other languages differ.
    """
    schema = _generate(arguments)
    del schema["additionalProperties"]
    schema["properties"] = {
        name: _simplify(part) if part else ANY_JSON for name, part in schema["properties"].items()
    }
    return schema


def output_schema(result: type[BaseModel]) -> JsonSchema:
    """Return the schema of a successful call's result."""
    return _compact(result.model_json_schema(mode="serialization", schema_generator=_OutputSchema))


class _InputSchema(GenerateJsonSchema):
    """Gives an optional argument its own type only, without null."""

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default", 0) is None:
            del found["default"]
        return found


class _OutputSchema(GenerateJsonSchema):
    """Writes null as a further type, which is shorter than anyOf."""

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return _allow_null(self.generate_inner(schema["schema"]))


def _generate(arguments: type[BaseModel]) -> JsonSchema:
    return _compact(arguments.model_json_schema(schema_generator=_InputSchema))


def _allow_null(schema: JsonSchema) -> JsonSchema:
    if not schema:
        return schema  # anything, null too
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    beside: JsonSchema = {n: schema[n] for n in ("default", "description") if n in schema}
    inner = {name: value for name, value in schema.items() if name not in beside}
    choices = inner["anyOf"] if list(inner) == ["anyOf"] else [inner]
    return {"anyOf": [*choices, {"type": "null"}], **beside}


def _state_nul(schema: JsonSchema) -> JsonSchema:
    if schema.get("type") == "string" and not {"enum", "pattern", "format"} & schema.keys():
        return {**schema, "pattern": NO_NUL}
    return schema


def _simplify(schema: JsonSchema) -> JsonSchema:
    kept = {name: schema[name] for name in schema if name not in _NOT_SHOWN}
    if "items" in kept:
        kept["items"] = _simplify(kept["items"])
    return kept


def _compact(schema: JsonSchema) -> JsonSchema:
    """Return the schema without titles and internal descriptions, with its $defs inlined."""
    definitions: JsonSchema = schema.pop("$defs", {})
    schema.pop("description", None)
    return _inline(schema, definitions)


def _inline(schema: JsonSchema, definitions: JsonSchema) -> JsonSchema:
    if "$ref" in schema:
        target = {**definitions[schema["$ref"].rsplit("/", 1)[1]]}
        target.pop("description", None)
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        return _inline(target | beside, definitions)
    compacted: JsonSchema = {}
    for original, value in schema.items():
        name = _KEYWORDS.get(original, original)
        if name == "properties":
            compacted[name] = {key: _inline(inner, definitions) for key, inner in value.items()}
        elif isinstance(value, dict) and name != "default":
            inlined = _inline(value, definitions)
            if (
                inlined or name != "additionalProperties"
            ):  # {} allows anything, just as no schema does
                compacted[name] = inlined
        elif name in ("anyOf", "allOf", "oneOf", "prefixItems"):
            compacted[name] = [_inline(inner, definitions) for inner in value]
        elif (name, value) == ("additionalProperties", True):
            continue  # the same
        elif name != "title" and value not in ({}, []):
            compacted[name] = value
    return compacted
