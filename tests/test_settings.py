"""How the sources of settings become settings, and what is said of those that cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.environment import EnvironmentOwner, read_sources
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings, load_settings
from shared_context_server.unknown_settings import find_unknown_variables

VALUES: dict[str, str] = {
    "data_dir": "/srv/scs",
    "database_url": "sqlite:////srv/x.db",
    "sqlite_synchronous": "FULL",
    "search_index": "false",
    "search_index_dir": "/srv/search",
    "search_process": "false",
    "semantic_model": "/srv/model",
    "postgres_listen_url": "postgresql://there/db",
    "api_key": "a-key-of-some-length",
    "admin_api_key": "another-key-of-some-length",
    "jwt_secret_key": "0123456789abcdef0123456789abcdef",
    "jwt_previous_secret_keys": "0123456789abcdef0123456789abcdef, fedcba9876543210fedcba9876543210",
    "auth_enabled": "false",
    "identity": "bound",
    "auth_disabled_off_loopback": "true",
    "postgres_prepare": "false",
    "metrics_public": "true",
    "http_host": "::1",
    "allowed_hosts": "a.example, b.example",
    "cors_origins": "https://a.example",
    "rate_limit": "5/second",
    "rate_limit_tools": "search_context=60/minute, add_message=off",
    "failed_auth_limit": "5/second",
    "trusted_proxies": "127.0.0.1, 10.0.0.0/8",
    "mcp_sessions": "stateful",
    "mcp_session_identity": "true",
    "tools": "core",
    "website_url": "https://agents.example/shared-context",
    "max_body_bytes": "2048",
    "clock_ntp_interval": "32",
    "log_level": "error",
    "log_format": "json",
    "clock_prefix": "other-",
    "clock_ntp": "kernel",
    "clock_sources": "none",
    "tool_use_ids": "false",
    "unread_mentions": "false",
}
NEEDED = {"mcp_session_identity": {"mcp_sessions": "stateful"}}  # settings that it goes with
NUMBER = "64"  # allowed for all settings that are numbers


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory and an environment without settings."""
    ours = {name.upper() for name in Settings.model_fields} | {"ENV_FILE"}
    for name in list(os.environ):
        if name.upper() in ours or name.upper().startswith("SCS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("owner", EnvironmentOwner)
@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_prefixed_name_that_counts_everywhere_and_wins(
    name: str, owner: EnvironmentOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = VALUES.get(name, NUMBER)
    default: Any = getattr(Settings(), name)
    monkeypatch.setenv(name.upper(), "of somebody else")
    needed = NEEDED.get(name, {})
    for variable, with_value in {name: value, **needed}.items():
        monkeypatch.setenv(f"SCS_{variable.upper()}", with_value)
    found = getattr(load_settings(owner), name)
    assert found == getattr(Settings.model_validate({name: value, **needed}), name) != default


def test_the_first_source_that_has_a_value_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each step takes the strongest source away."""

    def workers(**overrides: Any) -> int:
        return load_settings(EnvironmentOwner.SERVER, data_dir=tmp_path, **overrides).workers

    (tmp_path / "named.env").write_text("WORKERS=5\n")
    (tmp_path / ".env").write_text("WORKERS=6\n")
    (tmp_path / "secrets.env").write_text("WORKERS=7\n")
    monkeypatch.setenv("SCS_ENV_FILE", "named.env")
    monkeypatch.setenv("WORKERS", "4")
    monkeypatch.setenv("SCS_WORKERS", "3")
    assert workers(workers=2) == 2
    assert workers() == 3
    monkeypatch.delenv("SCS_WORKERS")
    assert workers() == 4
    monkeypatch.delenv("WORKERS")
    assert workers() == 5
    monkeypatch.delenv("SCS_ENV_FILE")
    assert workers() == 6
    (tmp_path / ".env").unlink()
    assert workers() == 7
    (tmp_path / "secrets.env").unlink()
    assert workers() == 1


def test_the_prefixed_name_wins_in_a_file_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SCS_WORKERS=3\nWORKERS=4\n")
    assert load_settings(EnvironmentOwner.SERVER).workers == 3


def test_making_settings_reads_no_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCS_WORKERS", "3")
    (tmp_path / ".env").write_text("WORKERS=4\n")
    assert Settings().workers == 1


def test_a_wrong_value_is_told_with_the_variable_and_the_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("API_KEY=short-secret\nHTTP_PORT=many\n")
    monkeypatch.setenv("SCS_LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(EnvironmentOwner.SERVER, workers=1000)
    text = str(caught.value)
    for told in (
        "SCS_LOG_LEVEL in the environment: ",
        f"API_KEY in {tmp_path / '.env'}: must be at least 16 characters",
        f"HTTP_PORT in {tmp_path / '.env'}: ",
        "WORKERS, given as an option: ",
    ):
        assert told in text
    assert "\n" not in text
    for value in ("short-secret", "many", "loud", "1000"):
        assert value not in text


def test_a_blank_value_is_a_missing_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCS_DATA_DIR", " ")
    monkeypatch.setenv("SCS_HTTP_PORT", "\t")
    (tmp_path / ".env").write_text("SCS_WORKERS=' '\n")
    assert load_settings(EnvironmentOwner.SERVER) == Settings()


def test_an_empty_host_is_not_every_address() -> None:
    with pytest.raises(ConfigurationError, match="HTTP_HOST, given as an option"):
        load_settings(EnvironmentOwner.SERVER, http_host="")


def test_a_data_dir_in_the_home_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCS_DATA_DIR", "~nobody-at-all/data")
    with pytest.raises(ConfigurationError, match=r"SCS_DATA_DIR in the environment: .* user"):
        load_settings(EnvironmentOwner.SERVER)


def test_two_keys_that_are_the_same_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCS_API_KEY", "the-same-key-twice")
    monkeypatch.setenv("SCS_ADMIN_API_KEY", "the-same-key-twice")
    with pytest.raises(ConfigurationError, match="API_KEY and ADMIN_API_KEY must differ"):
        load_settings()


def hints(owner: EnvironmentOwner) -> dict[str, str]:
    return {
        unknown.variable: unknown.hint for unknown in find_unknown_variables(read_sources(owner))
    }


@pytest.mark.parametrize(
    "variable, hint",
    [
        ("SCS_LOG_LEVLE", "Did you mean SCS_LOG_LEVEL?"),
        ("SCS_PORT", "Did you mean SCS_HTTP_PORT?"),
        ("SCS_TRANSPRT", "Use the option --transport of serve."),
        ("SCS_DATABASE_PATH", "Set SCS_DATABASE_URL=sqlite:///absolute/path.db, or SCS_DATA_DIR."),
        ("SCS_CLOCK_NTP_SERVERS", "Did you mean SCS_CLOCK_NTP?"),
        ("SCS_AGENT_IDS", "Did you mean SCS_AGENT_ID?"),
        ("SCS_FOO", "See docs/configuration.md for all settings."),
        ("SCS_NOTHING_OF_THE_KIND_XYZ", "See docs/configuration.md for all settings."),
    ],
)
@pytest.mark.parametrize("owner", EnvironmentOwner)
def test_a_prefixed_name_that_is_unknown_is_told_with_the_nearest(
    variable: str, hint: str, owner: EnvironmentOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    assert hints(owner) == {variable: hint}


@pytest.mark.parametrize(
    "variable, hint",
    [
        ("MCP_TRANSPORT", "Use the option --transport of serve."),
        ("MCP_PORT", "Did you mean HTTP_PORT?"),
        ("MCP_SESSION", "Did you mean MCP_SESSIONS?"),
        ("LOGLEVEL", "Did you mean LOG_LEVEL?"),
        ("DATABASE_URI", "Did you mean DATABASE_URL?"),
        ("AUDIT_RETENTION", "Did you mean AUDIT_RETENTION_DAYS?"),
        ("FORWARDED_ALLOW_IPS", "Set SCS_TRUSTED_PROXIES instead."),
    ],
)
def test_an_unprefixed_name_that_looks_like_ours_is_told_where_such_names_count(
    variable: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    assert hints(EnvironmentOwner.SERVER) == {variable: hint}
    assert hints(EnvironmentOwner.PROJECT) == {}


def test_names_that_have_nothing_to_do_with_us_are_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("HTTP_PROXY", "OPENAI_API_KEY", "POSTGRES_PASSWORD", "PORT", "XDG_DATA_DIRS"):
        monkeypatch.setenv(variable, "x")
    for variable in ("SCS_URL", "SCS_AGENT_ID", "SCS_READ_UNPREFIXED"):
        monkeypatch.setenv(variable, "x")
    assert hints(EnvironmentOwner.SERVER) == {}
