"""Answers that are written from rows: equal to what the models they stand for write."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_core import to_json

from shared_context_server.models import Ack, Message, Visibility
from shared_context_server.storage.codec import MESSAGE
from shared_context_server.storage.stored_messages import StoredMessages, rows_of
from shared_context_server.tools.messages import MessageItem, MessageList, WaitResult
from shared_context_server.tools.sessions import SessionDetails
from shared_context_server.tools.written import Written, write_json, write_messages, write_result

ITEMS = TypeAdapter(list[MessageItem])

# Whatever UTF-8 can hold; a store refuses lone surrogates.
texts = st.text(st.characters(codec="utf-8"), max_size=30)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
messages = st.builds(
    Message,
    id=st.integers(1, 2**63 - 1),
    session_id=texts,
    seq=st.integers(1, 2**63 - 1),
    sender=texts,
    sender_type=texts,
    content=texts,
    visibility=st.sampled_from(Visibility),
    recipients=st.lists(texts, max_size=3),
    metadata=st.dictionaries(texts, json_values, max_size=3),
    parent_message_id=st.none() | st.integers(1, 2**63 - 1),
    timestamp=st.datetimes(timezones=st.just(UTC)),
    sender_instance=st.just("") | texts,
    ack=st.sampled_from(Ack),
)


@settings(max_examples=50)
@given(st.lists(messages, max_size=3))
def test_messages_are_written_as_their_model_writes_them(found: list[Message]) -> None:
    expected = ITEMS.dump_json([MessageItem.of(message) for message in found])
    assert b"[%b]" % write_messages(found) == expected
    stored = StoredMessages(list(rows_of(found)))
    assert b"[%b]" % write_messages(stored) == expected
    assert list(stored) == found


def test_a_row_an_item_and_a_record_have_the_same_fields_in_the_same_order() -> None:
    names = list(Message._fields)
    shown = ["ack" if field.name == "requires_ack" else field.name for field in fields(MessageItem)]
    assert shown == names
    columns = [column.strip().removeprefix("m.") for column in MESSAGE.split(",")]
    assert columns == ["created_at" if name == "timestamp" else name for name in names]


@settings(max_examples=25)
@given(st.lists(messages, max_size=2))
def test_a_result_with_messages_is_written_as_its_model_writes_it(found: list[Message]) -> None:
    def filled(items: list[MessageItem]) -> MessageList:
        return MessageList(
            messages=items, count=1, total_count=2, has_more=True, next_after_seq=2**60
        )

    assert write_result(filled([]), found) == Written(
        to_json(filled([MessageItem.of(message) for message in found]))
    )


def test_messages_are_the_last_of_a_result_that_a_caller_can_put_text_into() -> None:
    """So that no text of a caller's can be taken for the place where they belong."""
    for model in (MessageList, WaitResult, SessionDetails):
        behind = list(model.model_fields.values())
        behind = behind[list(model.model_fields).index("messages") + 1 :]
        assert {field.annotation for field in behind} <= {int, bool, int | None}, model


def test_part_of_what_is_stored_is_still_stored() -> None:
    message = Message(
        1, "s", 1, "a", "t", "c", Visibility.PUBLIC, [], {}, None, datetime(2026, 1, 2, tzinfo=UTC)
    )
    stored = StoredMessages(list(rows_of([message, message._replace(seq=2)])))
    assert len(stored) == 2
    assert stored[-1].seq == 2
    assert [m.seq for m in stored[:1]] == [1]
    assert isinstance(stored[:1], StoredMessages)


def test_a_written_result_is_sent_as_it_is() -> None:
    assert write_json(Written(b'{"success":true}')) == b'{"success":true}'
    assert write_json({"success": False}) == b'{"success":false}'
