"""Errors travel between processes as they are."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from shared_context_server import errors
from shared_context_server.errors import QuotaExceeded, RateLimited, SharedContextError


def list_kinds(kind: type[SharedContextError] = SharedContextError) -> Iterator[type]:
    yield kind
    for one in kind.__subclasses__():
        yield from list_kinds(one)


@pytest.mark.parametrize("kind", list(list_kinds()), ids=lambda kind: kind.__name__)
def test_an_error_of_each_kind_is_the_same_in_another_process(
    kind: type[SharedContextError],
) -> None:
    error = kind.__new__(kind, "what happened")
    error.__dict__.update(message="what happened", hint="h", details={"field": "f", "seq": 3})
    received = pickle.loads(pickle.dumps(error))
    assert type(received) is kind
    assert (received.args, received.__dict__) == (error.args, error.__dict__)


@pytest.mark.parametrize(
    "error",
    [
        RateLimited(7),
        QuotaExceeded("Too many.", limit="max_messages_per_agent", maximum=3, left=0),
        errors.SessionNotFound("session_1"),
    ],
)
def test_callers_are_told_the_same(error: SharedContextError) -> None:
    received = pickle.loads(pickle.dumps(error))
    assert received.body() == error.body()
    assert received.retry_after_s == error.retry_after_s
