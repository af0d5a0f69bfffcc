"""Lines that strangers can cause: one a minute of a kind, and how many there were."""

from __future__ import annotations

import io
import json
import logging

import pytest

from shared_context_server.observability import throttle
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.observability.throttle import Throttle
from shared_context_server.settings import LogFormat, Settings

_log = get_logger("tests")


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure_logs(Settings(_env_file=None, log_format=LogFormat.JSON), stream=stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def find_throttle() -> Throttle:
    handlers = logging.getLogger().handlers
    (found,) = [
        known for handler in handlers for known in handler.filters if isinstance(known, Throttle)
    ]
    return found


def test_a_kind_of_ours_is_written_once_and_the_rest_is_counted(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1000):
        _log.warning("a stranger was refused", number=number, throttle=True)
    _log.warning("another kind", throttle=True)
    for _ in range(2):
        _log.warning("never held back")
    said = [line["event"] for line in events(stream)]
    assert said == ["a stranger was refused", "another kind", "never held back", "never held back"]
    assert all("throttle" not in line for line in events(stream))
    find_throttle()._interval_s = 0  # as if a minute had gone by
    find_throttle().flush()
    last = events(stream)[-1]
    assert (last["event"], last["number"], last["held_back"]) == (
        "a stranger was refused",
        999,
        998,
    )
    find_throttle().flush()
    assert len(events(stream)) == 5


def test_the_next_line_of_a_kind_says_how_many_were_held_back(stream: io.StringIO) -> None:
    for number in range(3):
        if number == 2:
            find_throttle()._interval_s = 0
        _log.info("again", throttle=True)
    assert [line.get("held_back") for line in events(stream)] == [None, 1]


def test_a_library_that_warns_again_and_again_is_held_back(stream: io.StringIO) -> None:
    library = logging.getLogger("uvicorn.error")
    for number in range(1000):
        library.warning("Invalid request number %d", number)
    library.warning("from another place")
    for _ in range(2):
        library.info("not held back")
    said = [line["event"] for line in events(stream)]
    assert said == [
        "Invalid request number 0",
        "from another place",
        "not held back",
        "not held back",
    ]
    find_throttle()._interval_s = 0
    find_throttle().flush()
    assert events(stream)[-1]["event"] == (
        "Invalid request number 999 (998 more like this were held back)"
    )


def test_different_faults_in_one_place_are_different_kinds(stream: io.StringIO) -> None:
    library = logging.getLogger("uvicorn.error")
    for fault in (ValueError("a"), KeyError("b"), ValueError("c")):
        try:
            raise fault
        except (ValueError, KeyError):
            library.exception("in an application")
    assert len(events(stream)) == 2


def test_there_are_only_as_many_kinds_as_places(stream: io.StringIO) -> None:
    library = logging.getLogger("mcp.server")
    for number in range(500):
        library.warning(f"session {number} was not found")
    assert len(find_throttle()._kinds) == 1
    assert throttle.INTERVAL_S == 60
