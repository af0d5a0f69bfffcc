"""What reaches the log: every line, once, in one format, without credentials."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastmcp import Client
from fastmcp.exceptions import NotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.shared.exceptions import MCPError
from pydantic import SecretStr

from shared_context_server.errors import SessionNotFound, Unavailable
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.server import open_server
from shared_context_server.settings import LogFormat, LogLevel
from tests.settings import ADMIN_API_KEY, API_KEY, JWT_SECRET_KEY, make_settings

UNUSED = Path("unused")  # the data dir of settings that no store is opened with

LIBRARIES = ("fastmcp", "mcp", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")

_log = get_logger("tests")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Logging belongs to the process; the other tests get theirs back."""
    root = logging.getLogger()
    named = [logging.getLogger(name) for name in (*LIBRARIES, "shared_context_server")]
    before = [(it, it.handlers[:], it.level, it.propagate) for it in (root, *named)]
    yield
    logging.captureWarnings(False)
    for it, handlers, level, propagate in before:
        it.handlers[:], it.propagate = handlers, propagate
        it.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def configure(**overrides: Any) -> io.StringIO:
    stream = io.StringIO()
    configure_logs(
        make_settings(UNUSED, **({"log_format": LogFormat.JSON} | overrides)), stream=stream
    )
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_ours_is_one_json_object_with_a_utc_time() -> None:
    stream = configure()
    _log.info("it happened", count=3, what="thing\nwith lines")
    (line,) = lines(stream)
    time = line.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time)
    assert line == {
        "event": "it happened",
        "count": 3,
        "what": "thing\nwith lines",
        "level": "info",
        "logger": "tests",
    }


@pytest.mark.parametrize(
    "name", ["uvicorn.error", "mcp.server", "fastmcp.server", "asyncio", "other"]
)
def test_a_librarys_line_looks_like_ours(name: str) -> None:
    stream = configure()
    logging.getLogger(name).warning("the %s of %d", "end", 7)
    (line,) = lines(stream)
    assert set(line) == {"event", "level", "logger", "timestamp"}
    assert (line["event"], line["level"], line["logger"]) == ("the end of 7", "warning", name)


def test_a_traceback_stays_in_its_line_and_shows_no_locals() -> None:
    stream = configure()
    hidden = "value of a local variable"
    try:
        raise ValueError("broken") from KeyError("cause")
    except ValueError:
        _log.exception("it failed", size=len(hidden))
        logging.getLogger("uvicorn.error").exception("so did this")
    for line in lines(stream):
        assert "ValueError: broken" in line["exception"]
        assert "KeyError: 'cause'" in line["exception"]
    assert hidden not in stream.getvalue()


def test_configuring_again_replaces_the_format() -> None:
    first = configure()
    second = configure(log_level=LogLevel.ERROR)
    _log.info("quiet")
    _log.error("loud")
    assert lines(first) == []
    assert [line["event"] for line in lines(second)] == ["loud"]


@pytest.mark.parametrize(
    "level, ours, uvicorns, others",
    [
        (LogLevel.DEBUG, "debug", "info", "info"),
        (LogLevel.INFO, "info", "info", "warning"),
        (LogLevel.WARNING, "warning", "warning", "warning"),
        (LogLevel.ERROR, "error", "error", "error"),
    ],
)
def test_libraries_never_speak_at_debug(
    level: LogLevel, ours: str, uvicorns: str, others: str
) -> None:
    stream = configure(log_level=level)
    speakers = {
        "tests": (_log, ours),
        "uvicorn.error": (logging.getLogger("uvicorn.error"), uvicorns),
        "mcp.server.streamable_http": (logging.getLogger("mcp.server.streamable_http"), others),
        "fastmcp.server.server": (logging.getLogger("fastmcp.server.server"), others),
        "aiosqlite": (logging.getLogger("aiosqlite"), others),
    }
    for logger, _ in speakers.values():
        for name in ("debug", "info", "warning", "error"):
            getattr(logger, name)(name)
    for name, (_, lowest) in speakers.items():
        said = [line["level"] for line in lines(stream) if line["logger"] == name]
        assert said[0] == lowest


def test_warnings_are_lines_too() -> None:
    stream = configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful: token=abcdef", stacklevel=1)
    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"
    assert "careful" in line["event"]
    assert "abcdef" not in line["event"]


def test_auto_is_for_readers_on_a_terminal_and_json_elsewhere() -> None:
    for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
        configure_logs(make_settings(UNUSED, log_format=LogFormat.AUTO), stream=stream)
        _log.warning("event", number=1)
        text = stream.getvalue()
        assert text.startswith("{") is is_json
        assert "event" in text


def test_readers_are_not_shown_a_callers_control_characters() -> None:
    stream = configure(log_format=LogFormat.HUMAN)
    _log.warning("path\n2026 [info] forged \x1b[31m", path="/\r\n\x1b]0;title\x07", nul="\0")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not [char for char in text[:-1] if not char.isprintable()]


def test_readers_get_tracebacks_on_lines_of_their_own() -> None:
    stream = configure(log_format=LogFormat.HUMAN)
    try:
        raise ValueError("broken\x1b[31m")
    except ValueError:
        _log.exception("it failed")
    text = stream.getvalue()
    assert "\nTraceback (most recent call last):\n" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("error", [NotFoundError("x"), MCPError(-32602, "x")])
def test_an_error_that_answers_a_call_leaves_no_traceback(error: Exception) -> None:
    stream = configure()
    library = logging.getLogger("fastmcp.server.server")
    for cause, is_logged in ((SessionNotFound("s"), False), (Unavailable(), True), (None, True)):
        try:
            raise error from cause
        except type(error):
            library.exception("Error reading resource")
        assert len(lines(stream)) == is_logged
        stream.seek(0)
        stream.truncate()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_line_that_cannot_be_written_is_not_shown_unredacted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = configure()
    logging.getLogger("uvicorn.error").warning("%s %s", Unprintable(), "token=abcdef")
    assert stream.getvalue() == "a line of the logger uvicorn.error could not be written\n"
    stream.close()
    _log.warning("to a closed stream", token="abcdef")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


SECRETS = (
    API_KEY,
    ADMIN_API_KEY,
    JWT_SECRET_KEY,
    "agt_0123456789abcdefABCDEF",
    "scs_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
)
texts = st.text(max_size=20)
placed = st.builds(
    lambda secret, a, b: (secret, a + secret + b), st.sampled_from(SECRETS), texts, texts
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=placed,
    format=st.sampled_from([LogFormat.JSON, LogFormat.HUMAN]),
    name=st.sampled_from(["path", "error", "api_key", "Authorization", "x"]),
)
def test_no_secret_reaches_the_stream(case: tuple[str, str], format: LogFormat, name: str) -> None:
    secret, text = case
    stream = configure(log_format=format)
    library = logging.getLogger("fastmcp.server")
    try:
        try:
            raise KeyError(text)
        except KeyError as cause:
            error = ValueError({"headers": [(b"authorization", text)]}, text)
            error.add_note(text)
            raise ExceptionGroup(text, [error]) from cause
    except ExceptionGroup:
        _log.exception(text, **{name: text}, nested={text: [text, {"a": (text, text.encode())}]})
        library.exception("failed at %s %r", text, {name: text})
    _log.info("%s", text, stack_info=True)
    library.warning(text.replace("%", "%%"))
    written = stream.getvalue()
    assert written.count("failed at") == 1
    assert secret not in written
    assert all(part not in written for part in secret.split(".") if len(part) > 8)


async def test_no_call_leaves_a_credential_in_the_log(tmp_path: Path) -> None:
    stream = io.StringIO()
    given_settings = make_settings(tmp_path, log_level=LogLevel.DEBUG, log_format=LogFormat.JSON)
    configure_logs(given_settings, stream=stream)
    async with open_server(given_settings) as server:
        transport = httpx.ASGITransport(server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post(
                "/mcp/tool/authenticate_agent",
                headers={"X-API-Key": API_KEY},
                json={"agent_id": "a"},
            )
            granted = answer.json()
            secrets = [API_KEY, granted["token"], granted["agent_handle"]]
            for secret in secrets:
                await client.post(f"/mcp/tool/{secret}?api_key={secret}", json={"api_key": secret})
                for headers in ({"Authorization": f"Bearer {secret}"}, {"X-API-Key": secret}):
                    await client.post("/mcp/tool/list_sessions", headers=headers, json={})
        async with Client(server.mcp) as mcp:
            for secret in secrets:
                arguments = {"auth_token": secret, "api_key": secret, "agent_id": "a"}
                for tool in ("list_sessions", "authenticate_agent", secret):
                    await mcp.call_tool(tool, arguments, raise_on_error=False)
    assert '"logger": "access"' in stream.getvalue()
    assert not [secret for secret in secrets if secret in stream.getvalue()]


def test_stdout_is_left_to_the_protocol() -> None:
    script = (
        "import logging, warnings\n"
        "from shared_context_server.observability.logs import configure_logs, get_logger\n"
        "from shared_context_server.settings import Settings\n"
        "get_logger('early').warning('before anything is configured')\n"
        "configure_logs(Settings())\n"
        "get_logger('t').info('ours')\n"
        "logging.getLogger('uvicorn.access').info('theirs')\n"
        "warnings.warn('careful')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    for event in ("before anything is configured", "ours", "theirs", "careful"):
        assert event in done.stderr


def test_settings_without_keys_will_do() -> None:
    stream = io.StringIO()
    configure_logs(
        make_settings(UNUSED, api_key=None, admin_api_key=SecretStr("x" * 16), jwt_secret_key=None),
        stream=stream,
    )
    _log.warning("x" * 16)
    assert "x" * 16 not in stream.getvalue()
