"""Lines that strangers can cause: one a minute of a kind, and how many there were."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable

import pytest

from shared_context_server.observability import throttle
from shared_context_server.observability.logs import THROTTLE, configure_logs, get_logger
from shared_context_server.settings import LogFormat, Settings

_log = get_logger("tests")


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure_logs(Settings(log_format=LogFormat.JSON), stream=stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def after_a_minute(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(THROTTLE, "_interval_s", 0)


def test_a_kind_of_ours_is_written_once_and_the_rest_is_counted(
    stream: io.StringIO, after_a_minute: Callable[[], None]
) -> None:
    for number in range(1000):
        _log.warning("a stranger was refused", number=number, throttle=True)
    _log.warning("another kind", throttle=True)
    for _ in range(2):
        _log.warning("never held back")
    said = [line["event"] for line in events(stream)]
    assert said == ["a stranger was refused", "another kind", "never held back", "never held back"]
    assert all("throttle" not in line for line in events(stream))
    after_a_minute()
    THROTTLE.flush()
    last = events(stream)[-1]
    assert (last["event"], last["number"], last["held_back"]) == (
        "a stranger was refused",
        999,
        998,
    )
    THROTTLE.flush()
    assert len(events(stream)) == 5


def test_the_next_line_of_a_kind_says_how_many_were_held_back(
    stream: io.StringIO, after_a_minute: Callable[[], None]
) -> None:
    for number in range(3):
        if number == 2:
            after_a_minute()
        _log.info("again", throttle=True)
    assert [line.get("held_back") for line in events(stream)] == [None, 1]


def test_reasons_of_one_event_are_kinds_of_their_own(stream: io.StringIO) -> None:
    for reason in ("full", "damaged", "full"):
        _log.error("storage failed", reason=reason, throttle=reason)
    assert [line["reason"] for line in events(stream)] == ["full", "damaged"]


def test_lines_of_ours_are_held_back_in_the_log_of_another_program_too(
    caplog: pytest.LogCaptureFixture, after_a_minute: Callable[[], None]
) -> None:
    THROTTLE.forget()
    for _ in range(3):
        _log.warning("a stranger was refused", throttle=True)
    assert len(caplog.records) == 1
    assert "throttle" not in caplog.records[0].getMessage()
    after_a_minute()
    THROTTLE.flush()
    assert "'held_back': 1" in caplog.records[1].getMessage()


def test_a_library_that_warns_again_and_again_is_held_back(
    stream: io.StringIO, after_a_minute: Callable[[], None]
) -> None:
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
    after_a_minute()
    THROTTLE.flush()
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
    assert len(THROTTLE._kinds) == 1
    assert throttle.INTERVAL_S == 60
