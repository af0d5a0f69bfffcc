"""What set_memory makes of the stored and the given value."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from shared_context_server.errors import Conflict, ContentTooLarge, InvalidArgument
from shared_context_server.models import JsonObject, MemoryAddress, MemoryEntry, MemoryMode
from shared_context_server.services.memory import (
    MAX_VALUE_BYTES,
    MemoryChange,
    make_update,
    merge_patch,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def entry(value: JsonValue, *, version: int = 1, expires_at: datetime | None = None) -> MemoryEntry:
    return MemoryEntry(
        address=MemoryAddress("key", None, "alice"),
        value=value,
        version=version,
        metadata={"kept": True},
        created_at=NOW,
        updated_at=NOW,
        updated_by="alice",
        expires_at=expires_at,
    )


def change(
    mode: MemoryMode,
    value: JsonValue = None,
    *,
    is_value_given: bool = True,
    metadata: JsonObject | None = None,
    expires_in: int | None = None,
    expected_version: int | None = None,
) -> MemoryChange:
    return MemoryChange(mode, value, is_value_given, metadata, expires_in, expected_version)


def written(current: MemoryEntry | None, mode: MemoryMode, value: JsonValue) -> JsonValue:
    return make_update(change(mode, value), NOW)(current).value


@pytest.mark.parametrize(
    "target,patch,expected",
    [
        # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_follows_the_examples_of_its_rfc(
    target: JsonValue, patch: JsonValue, expected: JsonValue
) -> None:
    assert merge_patch(target, patch) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(target=json_values, patch=json_values)
def test_merging_the_same_patch_again_changes_nothing(target: JsonValue, patch: JsonValue) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@given(start=st.integers(-(2**53), 2**53), steps=st.lists(st.integers(-1000, 1000)))
def test_increments_add_up(start: int, steps: list[int]) -> None:
    value: JsonValue = start
    for step in steps:
        value = written(entry(value), MemoryMode.INCREMENT, step)
    assert value == start + sum(steps)


def test_append_adds_an_element_or_text_to_text_and_starts_from_empty() -> None:
    assert written(None, MemoryMode.APPEND, "a") == ["a"]
    assert written(entry(["a"]), MemoryMode.APPEND, ["b"]) == ["a", ["b"]]
    assert written(entry("ab"), MemoryMode.APPEND, "c") == "abc"


def test_increment_starts_from_zero_and_adds_one_by_default() -> None:
    update = make_update(change(MemoryMode.INCREMENT, is_value_given=False), NOW)
    assert update(None).value == 1
    assert update(entry(41)).value == 42


@pytest.mark.parametrize(
    "mode,stored,value",
    [
        (MemoryMode.APPEND, {"a": 1}, "x"),
        (MemoryMode.APPEND, "text", 1),
        (MemoryMode.INCREMENT, "1", 1),
        (MemoryMode.INCREMENT, True, 1),
        (MemoryMode.INCREMENT, 1.7e308, 1.7e308),
        (MemoryMode.CREATE, None, 1),
    ],
)
def test_a_mode_that_does_not_fit_the_stored_value_is_a_conflict_that_shows_it(
    mode: MemoryMode, stored: JsonValue, value: JsonValue
) -> None:
    with pytest.raises(Conflict) as caught:
        written(entry(stored, version=3), mode, value)
    assert caught.value.details["current_version"] == 3
    assert caught.value.details["current_value"] == stored


@pytest.mark.parametrize("value", ["1", True, None, [1]])
def test_an_increment_by_something_else_than_a_number_is_refused(value: JsonValue) -> None:
    with pytest.raises(InvalidArgument) as caught:
        written(None, MemoryMode.INCREMENT, value)
    assert caught.value.details["field"] == "value"


@pytest.mark.parametrize(
    "current,expected,fits", [(None, 0, True), (None, 1, False), (2, 2, True), (2, 0, False)]
)
def test_an_expected_version_must_be_the_current_one(
    current: int | None, expected: int, fits: bool
) -> None:
    stored = None if current is None else entry("x", version=current)
    update = make_update(change(MemoryMode.REPLACE, 1, expected_version=expected), NOW)
    if fits:
        assert update(stored).value == 1
    else:
        with pytest.raises(Conflict) as caught:
            update(stored)
        assert caught.value.details["current_version"] == (current or 0)


def test_a_value_may_not_grow_beyond_the_limit_in_any_mode() -> None:
    nearly_full = ["x" * (MAX_VALUE_BYTES - 10)]
    with pytest.raises(ContentTooLarge) as caught:
        written(entry(nearly_full), MemoryMode.APPEND, "more than ten bytes")
    assert caught.value.details["field"] == "value"


def test_replace_forgets_metadata_and_expiry_and_the_other_modes_keep_them() -> None:
    expires_at = NOW + timedelta(hours=1)
    stored = entry(1, expires_at=expires_at)
    replaced = make_update(change(MemoryMode.REPLACE, 2), NOW)(stored)
    assert (replaced.metadata, replaced.expires_at) == ({}, None)
    added = make_update(change(MemoryMode.INCREMENT, 2), NOW)(stored)
    assert (added.metadata, added.expires_at) == ({"kept": True}, expires_at)


def test_a_life_counts_from_now() -> None:
    update = make_update(change(MemoryMode.REPLACE, 1, expires_in=90, metadata={"a": 1}), NOW)
    assert update(None).expires_at == NOW + timedelta(seconds=90)
    assert update(None).metadata == {"a": 1}


def nested(depth: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "mode,stored,value",
    [(MemoryMode.APPEND, [], nested(100)), (MemoryMode.MERGE, {}, {"a": nested(100)})],
)
def test_what_is_combined_is_held_to_the_depth_of_the_input(
    mode: MemoryMode, stored: JsonValue, value: JsonValue
) -> None:
    with pytest.raises(InvalidArgument, match="100 levels") as caught:
        written(entry(stored), mode, value)
    assert caught.value.details["field"] == "value"


@pytest.mark.parametrize(
    "stored,step",
    [(2**63 - 1, 1), (-(2**63), -1), (10**4300 - 1, 1), (10**400, 0.5), (0.5, 10**400)],
)
def test_a_sum_that_could_not_be_sent_is_a_conflict(stored: JsonValue, step: JsonValue) -> None:
    with pytest.raises(Conflict) as caught:
        written(entry(stored), MemoryMode.INCREMENT, step)
    assert caught.value.details["field"] == "value"


UNREADABLE = replace(entry(None), is_readable=False)


@pytest.mark.parametrize("mode", [MemoryMode.MERGE, MemoryMode.APPEND, MemoryMode.INCREMENT])
def test_a_value_that_cannot_be_read_cannot_be_combined(mode: MemoryMode) -> None:
    with pytest.raises(Conflict, match="cannot read") as caught:
        written(UNREADABLE, mode, {} if mode is MemoryMode.MERGE else 1)
    assert caught.value.details["field"] == "key"


def test_a_value_that_cannot_be_read_can_be_replaced() -> None:
    assert written(UNREADABLE, MemoryMode.REPLACE, 1) == 1
