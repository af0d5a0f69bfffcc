"""The parser of server-sent events against the cases of the HTML Living Standard."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_client.event_stream import EventStreamParser, ServerEvent


def parse(*chunks: bytes) -> list[ServerEvent]:
    parser = EventStreamParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def message(data: str, event_id: str = "") -> ServerEvent:
    return ServerEvent("message", data, event_id)


def test_lines_of_data_are_joined() -> None:
    assert parse(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [message("YHOO\n+2\n10")]


def test_comments_are_skipped_and_an_id_stays_until_it_is_emptied() -> None:
    stream = (
        b": test stream\n\ndata: first\nid: 1\n\ndata:second\n\ndata:third\nid\n\ndata:  4th\n\n"
    )
    events = [message("first", "1"), message("second", "1"), message("third"), message(" 4th")]
    assert parse(stream) == events


def test_empty_data_is_an_event_and_no_data_is_none() -> None:
    assert parse(b"data\n\ndata\ndata\n\ndata:") == [message(""), message("\n")]
    assert parse(b"event: ping\nid: 3\n\ndata: x\n\n") == [message("x", "3")]


def test_one_space_behind_the_colon_is_not_part_of_the_value() -> None:
    assert parse(b"data:test\n\ndata: test\n\n") == [message("test"), message("test")]


def test_an_event_that_the_end_cuts_off_is_none() -> None:
    assert parse(b"data: whole\n\ndata: half\n") == [message("whole")]


def test_the_type_counts_for_one_event() -> None:
    events = parse(b"event: add\ndata: 1\n\ndata: 2\n\n")
    assert events == [ServerEvent("add", "1", ""), message("2")]


def test_an_id_with_a_null_is_ignored() -> None:
    assert parse(b"id: 1\nid: 2\x003\ndata: x\n\n") == [message("x", "1")]


def test_other_fields_and_fields_in_capitals_mean_nothing() -> None:
    assert parse(b"DATA: x\nretry: 250\nmood: fine\n\n") == []


def test_a_byte_order_mark_counts_at_the_start_only() -> None:
    assert parse(b"\xef\xbb", b"\xbfdata: x\n\n") == [message("x")]
    assert parse(b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n") == [message("1")]


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    assert parse(b"data: \xff!\n\n") == [message("\ufffd!")]


def test_unicode_line_separators_do_not_end_a_line() -> None:
    text = "a\u2028b\u0085c\x0bd\x1ee"
    assert parse(f"data: {text}\n\n".encode()) == [message(text)]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@given(cuts=st.sets(st.integers(0, 60)))
def test_chunks_and_line_ends_do_not_matter(end: str, cuts: set[int]) -> None:
    text = ": hi\nevent: add\nid: 7\ndata: Grüße 🎉\ndata: 二\n\ndata: x\n\n"
    stream = text.replace("\n", end).encode()
    bounds = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(bounds)]
    assert parse(*chunks) == [ServerEvent("add", "Grüße 🎉\n二", "7"), message("x", "7")]


def test_a_carriage_return_ends_its_line_at_once() -> None:
    parser = EventStreamParser()
    assert parser.feed(b"data: x\r\r") == [message("x")]
    assert parser.feed(b"\ndata: y\r\n") == []
    assert parser.feed(b"\r\n") == [message("y")]
