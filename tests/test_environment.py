"""Which variables and env files count, by the owner of the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared_context_server.environment import (
    EnvironmentOwner,
    choose_trace_exporters,
    detach_libraries,
    read_env_file,
    read_sources,
)
from shared_context_server.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, and none of the variables that these tests set."""
    for name in [name for name in os.environ if name.upper().startswith(("SCS_", "OTEL_"))]:
        monkeypatch.delenv(name)
    for name in ("ENV_FILE", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def find(owner: EnvironmentOwner, name: str = "LOG_LEVEL") -> tuple[str, str] | None:
    """What the first source that has it says of a setting."""
    found = (source.find(name) for source in read_sources(owner))
    return next((answer for answer in found if answer), None)


@pytest.mark.parametrize("owner", EnvironmentOwner)
def test_a_prefixed_name_counts_everywhere(
    owner: EnvironmentOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    monkeypatch.setenv("SCS_LOG_LEVEL", "DEBUG")
    assert find(owner) == ("SCS_LOG_LEVEL", "DEBUG")


def test_an_unprefixed_name_counts_in_the_servers_environment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    assert find(EnvironmentOwner.SERVER) == ("LOG_LEVEL", "ERROR")
    assert find(EnvironmentOwner.PROJECT) is None


def test_an_environment_can_be_said_to_be_the_server_s_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCS_READ_UNPREFIXED", "true")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    (tmp_path / ".env").write_text("WORKERS=3\n")
    assert find(EnvironmentOwner.PROJECT) == ("LOG_LEVEL", "ERROR")
    assert find(EnvironmentOwner.PROJECT, "WORKERS") is None


def test_the_dotenv_of_a_project_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SCS_LOG_LEVEL=DEBUG\nLOG_LEVEL=ERROR\n")
    assert find(EnvironmentOwner.SERVER) == ("SCS_LOG_LEVEL", "DEBUG")
    assert find(EnvironmentOwner.PROJECT) is None


NOT_UTF_8 = {
    "latin-1": "LOG_LEVEL=ERROR # café\n".encode("latin-1"),
    "utf-16": "LOG_LEVEL=ERROR\n".encode("utf-16"),
    "utf-16 without BOM": "LOG_LEVEL=ERROR\n".encode("utf-16-le"),
}


@pytest.mark.parametrize("content", NOT_UTF_8.values(), ids=NOT_UTF_8)
def test_a_dotenv_that_is_not_utf_8_is_named_where_it_is_read(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8"):
        read_sources(EnvironmentOwner.SERVER)
    assert find(EnvironmentOwner.PROJECT) is None


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_LEVEL=ERROR\n", encoding="utf-8-sig")
    assert read_env_file(tmp_path / ".env") == {"LOG_LEVEL": "ERROR"}


@pytest.mark.parametrize("owner", EnvironmentOwner)
def test_the_file_that_is_named_counts_with_both_names(
    owner: EnvironmentOwner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.env").write_text("LOG_LEVEL=ERROR\nSCS_WORKERS=2\n")
    monkeypatch.setenv("SCS_ENV_FILE", "mine.env")
    assert find(owner) == ("LOG_LEVEL", "ERROR")
    assert find(owner, "WORKERS") == ("SCS_WORKERS", "2")


def test_the_unprefixed_name_of_the_file_may_be_the_project_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "theirs.env").write_text("LOG_LEVEL=ERROR\n")
    monkeypatch.setenv("ENV_FILE", "theirs.env")
    assert find(EnvironmentOwner.SERVER) == ("LOG_LEVEL", "ERROR")
    assert find(EnvironmentOwner.PROJECT) is None


def test_a_named_file_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCS_ENV_FILE", "/no/such/file")
    with pytest.raises(ConfigurationError, match=r"SCS_ENV_FILE names /no/such/file"):
        read_sources(EnvironmentOwner.PROJECT)


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCS_LOG_LEVEL", "")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    assert find(EnvironmentOwner.SERVER) == ("LOG_LEVEL", "ERROR")


def test_libraries_are_told_nothing_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMCP_LOG_LEVEL", "nonsense")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/of/the/project")
    monkeypatch.setenv("FASTMCP_ENV_FILE", "theirs.env")
    detach_libraries()
    left = {name: value for name, value in os.environ.items() if name.startswith("FASTMCP_")}
    assert left == {"FASTMCP_ENV_FILE": os.devnull}
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


@pytest.mark.parametrize(
    "variables, chosen",
    [
        ({}, []),
        (GRPC, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, []),
        (ENDPOINT, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a/v1"}, ["otlp_proto_http"]),
        (ENDPOINT | GRPC, ["otlp_proto_grpc"]),
        (ENDPOINT | GRPC | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "x"}, ["otlp_proto_http"]),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, []),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
    ],
)
def test_the_standard_variables_choose_the_exporters_of_traces(
    variables: dict[str, str], chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose_trace_exporters() == chosen


@pytest.mark.parametrize(
    "name, wrong, right",
    [
        ("OTEL_PROPAGATORS", "tracecontext,nope", "tracecontext,baggage"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "nope", "default_tracer_provider"),
        ("OTEL_PYTHON_CONTEXT", "nope", "contextvars_context"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x", "128"),
    ],
)
def test_a_variable_that_opentelemetry_cannot_use_is_removed_and_named(
    name: str,
    wrong: str,
    right: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("FASTMCP_ENV_FILE", os.devnull)
    monkeypatch.setenv(name, right)
    detach_libraries()
    assert os.environ[name] == right
    assert not caplog.records
    monkeypatch.setenv(name, wrong)
    detach_libraries()
    assert name not in os.environ
    assert name in caplog.text
