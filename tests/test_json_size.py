"""How many values a JSON text has."""

from __future__ import annotations

import pytest

from shared_context_server.json_size import (
    MAX_ENVELOPE_VALUES,
    MAX_VALUES,
    has_too_many_values,
    is_envelope_too_large,
)


@pytest.mark.parametrize("value", [b"1", b"[]", b"{}", b'"x"', b'{"a":1}'], ids=repr)
def test_values_are_counted_whatever_they_are(value: bytes) -> None:
    per_value = 2 if value[:1] in b"[{" else 1
    few = b"[" + b",".join([value] * (MAX_VALUES // per_value - 1)) + b"]"
    many = b"[" + b",".join([value] * (MAX_VALUES + 1)) + b"]"

    assert not has_too_many_values(few)
    assert has_too_many_values(many)


def test_signs_within_texts_are_no_values() -> None:
    assert not has_too_many_values(b'{"content":"' + b",[{" * 100_000 + b'"}')
    assert not has_too_many_values(b'{"content":"' + rb"\",\\" * 100_000 + b'"}')


def test_many_texts_are_many_values() -> None:
    assert has_too_many_values(b"[" + b'"[",' * (MAX_VALUES + 1) + b'""]')
    assert has_too_many_values(b'["\\"",' + b'"\\\\",' * (MAX_VALUES + 1) + b'""]')


def test_a_text_that_does_not_end_is_counted_too() -> None:
    assert not has_too_many_values(b'["' + b",\\" * 100_000)
    assert has_too_many_values(b"[" * (MAX_VALUES + 1))


def test_the_arguments_of_a_tool_do_not_count_as_envelope() -> None:
    wide = {f"name{number}": number for number in range(MAX_ENVELOPE_VALUES)}
    call = {"method": "tools/call", "params": {"name": "x", "arguments": wide}}

    assert not is_envelope_too_large(call)
    assert is_envelope_too_large({**call, "method": "prompts/get"})
    assert is_envelope_too_large({**call, "params": {"name": "x", "_meta": wide}})
    assert is_envelope_too_large({"method": "x", "params": {"a": [[[0]] * MAX_ENVELOPE_VALUES]}})
