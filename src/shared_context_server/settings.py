"""The frozen settings, and the only reader of the environment.

Sources, the first that has a value wins: the environment, the file that ENV_FILE
names, `.env` in the working directory, `<data dir>/secrets.env` (keys only).
"""

from __future__ import annotations

import ipaddress
import os
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from dotenv import dotenv_values
from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared_context_server.clock.segment import check_prefix
from shared_context_server.errors import ConfigurationError

SECRETS_FILE = "secrets.env"
MIN_JWT_SECRET_BYTES = 32  # RFC 7518 section 3.2: HS256 wants a key of at least the hash's size
MIN_API_KEY_CHARS = 16


class LogFormat(StrEnum):
    """AUTO is human-readable on a terminal and JSON elsewhere."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Synchronous(StrEnum):
    """SQLite's PRAGMA synchronous: NORMAL survives a killed process, FULL a power cut too."""

    NORMAL = "NORMAL"
    FULL = "FULL"


class McpSessions(StrEnum):
    STATELESS = "stateless"
    STATEFUL = "stateful"


class ToolSet(StrEnum):
    ALL = "all"
    CORE = "core"


def _split(value: Any) -> Any:
    """Read `a, b` from an environment variable as a tuple."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Everything an operator can set; names in upper case are the environment variables."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, case_sensitive=False
    )

    # Storage
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("shared-context-server")),
        description="Directory of the database and the generated secrets.",
    )
    database_url: str | None = Field(
        default=None,
        description=(
            "sqlite:///absolute/path.db or postgresql://user:password@host/database; "
            "default: shared_context.db in DATA_DIR."
        ),
    )
    sqlite_synchronous: Synchronous = Field(
        default=Synchronous.NORMAL, description="NORMAL or FULL (fsync at every commit)."
    )
    sqlite_busy_timeout_ms: int = Field(
        default=5_000, ge=0, description="Wait for another process's write lock, ms."
    )
    sqlite_cache_mb: int = Field(
        default=16, ge=1, le=4096, description="Page cache of a connection, MiB."
    )
    sqlite_mmap_mb: int = Field(
        default=256, ge=0, le=65536, description="Memory-mapped part of the database, MiB."
    )
    sqlite_readers: int = Field(
        default=4, ge=1, le=64, description="Pooled read connections in a process."
    )

    postgres_pool_size: int = Field(
        default=10, ge=2, le=1000, description="Most connections of a process to PostgreSQL."
    )
    postgres_timeout: float = Field(
        default=10, gt=0, le=600, description="How long a call waits for PostgreSQL, seconds."
    )
    postgres_prepare: bool = Field(
        default=True,
        description="false: behind a pooler that cannot keep prepared statements.",
    )
    postgres_listen_url: str | None = Field(
        default=None,
        description="The database itself, where DATABASE_URL goes through a pooler: for LISTEN.",
    )

    # Identity
    api_key: SecretStr | None = Field(
        default=None, description="Grants read and write; generated on the first start."
    )
    admin_api_key: SecretStr | None = Field(
        default=None, description="Grants admin too; generated on the first start."
    )
    jwt_secret_key: SecretStr | None = Field(
        default=None, description="Signs tokens, at least 32 bytes; generated on the first start."
    )
    jwt_expires_in: int = Field(
        default=86_400, ge=60, le=31_536_000, description="Life of a token, seconds."
    )
    auth_enabled: bool = Field(
        default=True, description="false: everyone is who they say; loopback only."
    )
    auth_disabled_off_loopback: bool = Field(
        default=False, description="true: allow AUTH_ENABLED=false on other addresses too."
    )

    # HTTP
    http_host: str = Field(default="127.0.0.1", description="Address to listen on.")
    http_port: int = Field(default=23456, ge=0, le=65535, description="Port; 0 picks a free one.")
    workers: int = Field(default=1, ge=1, le=64, description="Processes that serve HTTP.")
    allowed_hosts: CommaSeparated = Field(
        default=(), description="Further Host header names to accept, comma-separated; * for any."
    )
    cors_origins: CommaSeparated = Field(
        default=(), description="Origins whose pages may call the server, comma-separated."
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, description="Largest request body on any route, bytes."
    )
    rate_limit: str = Field(
        default="120000/minute",
        description=(
            "Requests that all holders of a key and of its tokens together (or an anonymous address) "
            "may make, per process; 'off' for none."
        ),
    )
    failed_auth_limit: str = Field(
        default="600/minute",
        description="Wrong credentials an address may present, per process; 'off' for no limit.",
    )
    max_connections: int | None = Field(
        default=None,
        ge=16,
        le=1_000_000,
        description="Most connections of a process; default: from the limit of open files.",
    )
    max_connections_per_address: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Of them from one address, loopback and TRUSTED_PROXIES aside; default: half.",
    )
    max_streams: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Most open streams and waiting calls of a process.",
    )
    max_streams_per_agent: int = Field(
        default=1024, ge=1, le=1_000_000, description="Of them those of one agent."
    )
    max_streams_per_key: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Of them those of all agents of one key; default: three quarters.",
    )
    trusted_proxies: CommaSeparated = Field(
        default=(),
        description=(
            "Addresses and networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto "
            "are believed, comma-separated."
        ),
    )
    metrics_public: bool = Field(default=False, description="true: /metrics without a key.")

    # MCP
    mcp_sessions: McpSessions = Field(
        default=McpSessions.STATELESS,
        description="stateful: legacy clients keep a session in the process (one worker).",
    )
    mcp_session_idle: int = Field(
        default=1800,
        ge=1,
        le=604_800,
        description="stateful: a session without use ends after so long, seconds.",
    )
    max_mcp_sessions: int = Field(
        default=1000, ge=1, le=100_000, description="stateful: most sessions of the process."
    )
    max_mcp_sessions_per_caller: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="stateful: of them those of one agent, or of one anonymous address.",
    )
    tools: ToolSet = Field(
        default=ToolSet.ALL, description="core: only auth, sessions, messages, search, memory."
    )

    # Logs
    log_level: LogLevel = Field(
        default=LogLevel.INFO, description="DEBUG (adds a line for each request) to ERROR."
    )
    log_format: LogFormat = Field(default=LogFormat.AUTO, description="auto, human or json.")

    # Retention
    audit_retention_days: int = Field(
        default=90, ge=1, description="Audit entries older than this are removed."
    )
    idempotency_retention_hours: int = Field(
        default=168, ge=1, description="How long a repeated idempotency_key is recognised."
    )

    # Clock: where tools read it; the others are what `clock` and `serve --with-clock` run it with
    clock_prefix: str = Field(
        default="", description="Put before the clock's shared memory names, to have several."
    )
    clock_hz: float = Field(default=1000, ge=0.1, le=10_000, description="Ticks a second.")
    clock_ntp: CommaSeparated = Field(
        default=(), description="Time servers as HOST[:PORT], comma-separated; or kernel; or none."
    )
    clock_ntp_interval: float = Field(
        default=64, ge=0.1, le=86_400, description="Between questions to a time server, seconds."
    )
    clock_ntp_hold: float = Field(
        default=3600, ge=0, le=1e7, description="How long an answer keeps it synchronized, seconds."
    )
    clock_sources: CommaSeparated = Field(
        default=("hwmon", "iio", "psutil"),
        description="Where sensor values come from, comma-separated; see the page on the clock.",
    )
    clock_sensor_interval: float = Field(
        default=1, ge=0.01, le=86_400, description="Between readings of the sensors, seconds."
    )

    _split_lists = field_validator(
        "allowed_hosts",
        "cors_origins",
        "trusted_proxies",
        "clock_ntp",
        "clock_sources",
        mode="before",
    )(_split)
    _check_clock_prefix = field_validator("clock_prefix", mode="after")(check_prefix)

    @field_validator("log_level", "sqlite_synchronous", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            try:
                ipaddress.ip_network(entry, strict=False)
            except ValueError:
                raise ValueError("must be addresses or networks such as 10.0.0.0/8") from None
        return value

    @field_validator("rate_limit", "failed_auth_limit", mode="after")
    @classmethod
    def _one_rate(cls, value: str) -> str:
        try:
            is_one = value == "off" or len(parse_many(value)) == 1
        except ValueError:
            is_one = False
        if not is_one:
            raise ValueError("must be one rate such as 100/minute, or off")
        return value

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("jwt_secret_key", mode="after")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_JWT_SECRET_BYTES:
            raise ValueError(f"must be at least {MIN_JWT_SECRET_BYTES} bytes")
        return value

    @field_validator("api_key", "admin_api_key", mode="after")
    @classmethod
    def _not_guessable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_API_KEY_CHARS:
            raise ValueError(f"must be at least {MIN_API_KEY_CHARS} characters")
        return value

    @model_validator(mode="after")
    def _keys_differ(self) -> Settings:
        if self.api_key is not None and self.api_key == self.admin_api_key:
            raise ValueError("API_KEY and ADMIN_API_KEY must differ")
        return self

    @property
    def storage_url(self) -> str:
        """DATABASE_URL, or the SQLite file of the data dir."""
        return self.database_url or f"sqlite:///{self.data_dir / 'shared_context.db'}"

    @property
    def secrets_path(self) -> Path:
        return self.data_dir / SECRETS_FILE

    @property
    def token_life(self) -> timedelta:
        return timedelta(seconds=self.jwt_expires_in)


def load_settings(**overrides: Any) -> Settings:
    """Read all sources; `overrides` (None means: not given) win over every one of them.

    Raises ConfigurationError naming each setting that is wrong, never showing its value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = _read(given, ())
        if settings.secrets_path.is_file():
            settings = _read(given, (settings.secrets_path,))
    except ValidationError as exc:
        raise ConfigurationError(_explain(exc)) from exc
    return settings


def _read(given: dict[str, Any], base_files: tuple[Path, ...]) -> Settings:
    files: list[Path] = [*base_files, Path(".env")]
    env_file = os.environ.get("ENV_FILE")
    if env_file:
        if not Path(env_file).is_file():
            raise ConfigurationError(f"ENV_FILE names {env_file}, which is not a file.")
        files.append(Path(env_file))
    return Settings(_env_file=tuple(files), **given)


def read_secrets(path: Path) -> dict[str, str]:
    """The name=value pairs of a secrets file; empty when there is none."""
    if not path.is_file():
        return {}
    return {name: value for name, value in dotenv_values(path).items() if value}


def _explain(exc: ValidationError) -> str:
    lines = [
        f"{'.'.join(str(part) for part in error['loc']).upper() or 'settings'}: {error['msg']}"
        for error in exc.errors(include_input=False, include_url=False)
    ]
    return "The configuration is not valid. " + "; ".join(lines)
