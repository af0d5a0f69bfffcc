"""Accept and Content-Type of requests on /mcp."""

from __future__ import annotations

import pytest

from shared_context_server.errors import NotAcceptable, UnsupportedMediaType
from shared_context_server.transport.media_types import Accepted, read_accept, require_json

BOTH = Accepted(json=True, stream=True)
ONLY_JSON = Accepted(json=True, stream=False)
ONLY_STREAM = Accepted(json=False, stream=True)


@pytest.mark.parametrize(
    "header, accepted",
    [
        (None, BOTH),
        ("", BOTH),
        (" , ", BOTH),
        ("*/*", BOTH),
        ("application/json, text/event-stream", BOTH),
        ("Application/JSON;charset=utf-8 , TEXT/*;q=0.5", BOTH),
        ("application/json", ONLY_JSON),
        ("application/*", ONLY_JSON),
        ("text/event-stream", ONLY_STREAM),
        ("text/*", ONLY_STREAM),
        ("text/html, text/event-stream", ONLY_STREAM),
        ("*/*, application/json;q=0", ONLY_STREAM),
        ("*/*;q=0.1, text/event-stream; q=0.0", ONLY_JSON),
        ("application/json;q=high", ONLY_JSON),
    ],
)
def test_an_answer_may_have_the_forms_that_are_accepted(
    header: str | None, accepted: Accepted
) -> None:
    assert read_accept(header) == accepted


@pytest.mark.parametrize("header", ["image/png", "application/xml", "*/*;q=0", "json"])
def test_a_request_that_accepts_neither_form_is_refused(header: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        read_accept(header)
    assert caught.value.details == {"field": "Accept"}
    assert header in caught.value.message


@pytest.mark.parametrize("header", ["application/json", "Application/JSON ; charset=utf-8"])
def test_a_body_of_json_is_read(header: str) -> None:
    require_json(header)


@pytest.mark.parametrize("header", [None, "", "text/plain", "application/jsonp", "text/json"])
def test_a_body_of_another_type_is_refused(header: str | None) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        require_json(header)
    assert caught.value.details == {"field": "Content-Type"}
