"""The settings and how they are loaded.

The sources, the first that has a value wins: options and arguments, the environment, the file that
SCS_ENV_FILE names, `.env` in the working directory, `<data dir>/secrets.env`. `environment.py` defines
which variable names are read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from shared_context_server.clock.owners import check_owner
from shared_context_server.clock.segment import check_prefix
from shared_context_server.environment import (
    EnvironmentOwner,
    Source,
    read_env_file,
    read_source,
    read_sources,
)
from shared_context_server.errors import ConfigurationError
from shared_context_server.limit_settings import CommaSeparated, LimitSettings

SECRETS_FILE = "secrets.env"
MAX_PREVIOUS_SECRETS = 5
MIN_JWT_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key for HS256 is at least as long as the hash
MIN_API_KEY_CHARS = 16
IN_MEMORY_URL = "sqlite:///:memory:"


class LogFormat(StrEnum):
    """AUTO means HUMAN on a terminal and JSON elsewhere."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Synchronous(StrEnum):
    """SQLite's PRAGMA synchronous. NORMAL is safe if the process dies, FULL also at a power failure."""

    NORMAL = "NORMAL"
    FULL = "FULL"


class McpSessions(StrEnum):
    STATELESS = "stateless"
    STATEFUL = "stateful"


class IdentityMode(StrEnum):
    """OPEN: the holder of API_KEY or ADMIN_API_KEY may be any agent. BOUND: each key is for the agents
    that it was created for."""

    OPEN = "open"
    BOUND = "bound"


class ToolSet(StrEnum):
    ALL = "all"
    CORE = "core"


class Settings(LimitSettings):
    """All settings. load_settings reads them from variables of the same names in upper case, with or
    without the prefix SCS_. The constructor reads no variables."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # Storage
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("shared-context-server")),
        description="Directory of the database and the generated secrets.",
    )
    database_url: str | None = Field(
        default=None,
        description=(
            "sqlite:///absolute/path.db or postgresql://user:password@host/database; for trials "
            "sqlite:///:memory:; default: shared_context.db in DATA_DIR."
        ),
    )
    sqlite_synchronous: Synchronous = Field(
        default=Synchronous.NORMAL, description="NORMAL or FULL (fsync at every commit)."
    )
    sqlite_busy_timeout_ms: int = Field(
        default=5_000, ge=0, description="How long to wait for another process's write lock, ms."
    )
    sqlite_timeout: float = Field(
        default=10, gt=0, le=600, description="How long a call waits for SQLite, seconds."
    )
    sqlite_cache_mb: int = Field(
        default=16, ge=1, le=4096, description="Page cache of each connection, MiB."
    )
    sqlite_mmap_mb: int = Field(
        default=256, ge=0, le=65536, description="Memory-mapped part of the database, MiB."
    )
    sqlite_readers: int = Field(
        default=4, ge=1, le=64, description="Read connections of each process."
    )

    search_index: bool = Field(
        default=True,
        description="false: without the index, search compares the newest messages for 1.5 s.",
    )
    search_index_dir: Path | None = Field(
        default=None,
        description="Local directory of the search index; default: search-index in DATA_DIR.",
    )
    search_process: bool = Field(
        default=True,
        description="Search in a process of its own while much is searched, so that other calls do "
        "not wait for searches; not with WORKERS.",
    )
    semantic_model: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of a model (model.onnx, tokenizer.json), or python:MODULE:FUNCTION; "
        "switches semantic search on.",
    )

    postgres_pool_size: int = Field(
        default=10, ge=2, le=1000, description="Maximum connections of a process to PostgreSQL."
    )
    postgres_timeout: float = Field(
        default=10, gt=0, le=600, description="How long a call waits for PostgreSQL, seconds."
    )
    postgres_prepare: bool = Field(
        default=True,
        description="Set to false behind a pooler that does not support prepared statements.",
    )
    postgres_listen_url: str | None = Field(
        default=None,
        description="For LISTEN: the URL of the database itself if DATABASE_URL is that of a pooler.",
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
    jwt_previous_secret_keys: SecretStr | None = Field(
        default=None,
        description="Earlier values of JWT_SECRET_KEY, separated by commas: their tokens are still "
        "accepted.",
    )
    jwt_expires_in: int = Field(
        default=86_400, ge=60, le=31_536_000, description="Lifetime of a token, seconds."
    )
    auth_enabled: bool = Field(
        default=True,
        description="false: callers choose their agent id without a key; only on loopback.",
    )
    identity: IdentityMode = Field(
        default=IdentityMode.OPEN,
        description="bound: API_KEY is refused, each agent needs a key of its own (scs keys create).",
    )
    auth_disabled_off_loopback: bool = Field(
        default=False, description="true: allow AUTH_ENABLED=false on other addresses too."
    )

    # HTTP
    http_host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    http_port: int = Field(default=23456, ge=0, le=65535, description="Port; 0 picks a free one.")
    workers: int = Field(default=1, ge=1, le=64, description="Processes that serve HTTP.")
    allowed_hosts: CommaSeparated = Field(
        default=(), description="Further Host header names to accept, comma-separated; * for any."
    )
    cors_origins: CommaSeparated = Field(
        default=(), description="Origins whose pages may call the server, comma-separated."
    )
    trusted_proxies: CommaSeparated = Field(
        default=(),
        description=(
            "Addresses and networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto "
            "are trusted, comma-separated."
        ),
    )
    metrics_public: bool = Field(default=False, description="true: /metrics without a key.")

    # MCP
    mcp_sessions: McpSessions = Field(
        default=McpSessions.STATELESS,
        description="stateful: the process keeps sessions of legacy clients (one worker).",
    )
    mcp_session_identity: bool = Field(
        default=False,
        description=(
            "true: after authenticate_agent the Mcp-Session-Id is enough to call as the agent, for an "
            "hour. The protocol advises against it. Only with MCP_SESSIONS=stateful on loopback."
        ),
    )
    mcp_session_idle: int = Field(
        default=1800,
        ge=1,
        le=604_800,
        description="stateful: an unused session ends after this time, seconds.",
    )
    max_mcp_sessions: int = Field(
        default=1000, ge=1, le=100_000, description="stateful: maximum sessions of the process."
    )
    max_mcp_sessions_per_caller: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="stateful: maximum of these for one agent, or one anonymous address.",
    )
    tools: ToolSet = Field(
        default=ToolSet.ALL,
        description="core: only tools for auth, sessions, messages, search and memory.",
    )

    website_url: str | None = Field(
        default=None,
        max_length=2048,
        pattern=r"^https?://[^\s]+$",
        description="A page about this server that clients and directories show; default: none.",
    )

    # Logs
    log_level: LogLevel = Field(
        default=LogLevel.INFO, description="DEBUG (adds a line for each request) to ERROR."
    )
    log_format: LogFormat = Field(default=LogFormat.AUTO, description="auto, human or json.")

    # Retention
    session_retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description=(
            "Sessions in which nothing was written for this time are deleted, open ones too; "
            "default: none."
        ),
    )
    message_retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description=(
            "Messages older than this at the beginning of a session are removed, also in open "
            "sessions; the session stays; default: none."
        ),
    )
    audit_retention_days: int = Field(
        default=90, ge=1, description="Audit entries older than this are removed."
    )
    idempotency_retention_hours: int = Field(
        default=168, ge=1, description="How long a repeated idempotency_key is recognised."
    )
    unread_mentions: bool = Field(
        default=True,
        description="Tell callers with their next answer, once, of new messages addressed to them.",
    )
    tool_use_ids: bool = Field(
        default=True,
        description=(
            "Recognise a repeated write without idempotency_key by the id of the tool use that "
            "Claude Code sends."
        ),
    )

    # Clock: the tools use prefix and owner; the others are for `clock` and `serve --with-clock`
    clock_prefix: str = Field(
        default="", description="Prefix of the clock's shared memory names, to run several clocks."
    )
    clock_owner: str = Field(
        default="",
        description="User (name or number) whose clock is trusted, besides the server's own user "
        "and root.",
    )
    clock_hz: float = Field(default=1000, ge=0.1, le=10_000, description="Ticks a second.")
    clock_ntp: CommaSeparated = Field(
        default=(), description="Time servers as HOST[:PORT], comma-separated; or kernel; or none."
    )
    clock_ntp_interval: float = Field(
        default=64, ge=0.1, le=86_400, description="Time between queries to a time server, seconds."
    )
    clock_ntp_hold: float = Field(
        default=3600,
        ge=0,
        le=1e7,
        description="How long the clock counts as synchronized after an answer, seconds.",
    )
    clock_sources: CommaSeparated = Field(
        default=("hwmon", "iio", "psutil"),
        description="Sources of sensor values, comma-separated; see the page on the clock.",
    )
    clock_sensor_interval: float = Field(
        default=1,
        ge=0,
        le=86_400,
        description="Time between readings of the sensors, seconds; 0 reads as often as the clock ticks.",
    )

    _check_clock_prefix = field_validator("clock_prefix", mode="after")(check_prefix)
    _check_clock_owner = field_validator("clock_owner", mode="after")(check_owner)

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

    @field_validator("data_dir", "search_index_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        try:
            return None if value is None else value.expanduser().absolute()
        except RuntimeError as exc:  # ~somebody
            raise ValueError("names the home directory of an unknown user") from exc
        except FileNotFoundError as exc:
            raise ValueError("is relative, but the working directory was removed") from exc

    @field_validator("jwt_secret_key", mode="after")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_JWT_SECRET_BYTES:
            raise ValueError(f"must be at least {MIN_JWT_SECRET_BYTES} bytes")
        return value

    @field_validator("jwt_previous_secret_keys", mode="after")
    @classmethod
    def _few_and_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        previous = split_secrets(value)
        if len(previous) > MAX_PREVIOUS_SECRETS:
            raise ValueError(f"must be at most {MAX_PREVIOUS_SECRETS} secrets")
        if any(len(secret) < MIN_JWT_SECRET_BYTES for secret in previous):
            raise ValueError(f"each must be at least {MIN_JWT_SECRET_BYTES} bytes")
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

    @model_validator(mode="after")
    def _bound_identity_has_keys(self) -> Settings:
        if self.identity is IdentityMode.BOUND and not self.auth_enabled:
            raise ValueError("IDENTITY=bound needs AUTH_ENABLED=true")
        return self

    @model_validator(mode="after")
    def _session_identity_has_sessions(self) -> Settings:
        if self.mcp_session_identity and self.mcp_sessions is not McpSessions.STATEFUL:
            raise ValueError("MCP_SESSION_IDENTITY=true needs MCP_SESSIONS=stateful")
        return self

    @property
    def previous_secrets(self) -> tuple[bytes, ...]:
        """The secrets of JWT_PREVIOUS_SECRET_KEYS."""
        return split_secrets(self.jwt_previous_secret_keys)

    @property
    def storage_url(self) -> str:
        """DATABASE_URL, or the SQLite file of the data dir."""
        return self.database_url or f"sqlite:///{self.data_dir / 'shared_context.db'}"

    @property
    def search_index_parent(self) -> Path:
        """Where the search indexes are, those of each store in a directory of their own."""
        return self.search_index_dir or self.data_dir / "search-index"

    @property
    def is_in_memory(self) -> bool:
        """Whether the database lives and ends with the process that serves it."""
        return self.database_url == IN_MEMORY_URL

    @property
    def secrets_path(self) -> Path:
        return self.data_dir / SECRETS_FILE


def split_secrets(value: SecretStr | None) -> tuple[bytes, ...]:
    """The secrets of a list that is separated by commas."""
    texts = () if value is None else value.get_secret_value().split(",")
    return tuple(text.strip().encode() for text in texts if text.strip())


def load_settings(
    owner: EnvironmentOwner = EnvironmentOwner.PROJECT, /, **overrides: Any
) -> Settings:
    """Load the settings from all sources. `overrides` take precedence; None means not given.

    Raises ConfigurationError if a file cannot be read, or with the names of all wrong settings and
    the sources of their values. It does not show the values.
    """
    return make_settings(read_sources(owner), overrides)


def make_settings(sources: Sequence[Source], overrides: Mapping[str, Any]) -> Settings:
    """Make the settings from sources that were read before. A source can be a pipe, so it is read only
    once."""
    given = {name: value for name, value in overrides.items() if value is not None}
    settings = _make(given, sources)
    if _exists(settings.secrets_path):
        settings = _make(given, [*sources, read_source(settings.secrets_path)])
    return settings


def _make(given: Mapping[str, Any], sources: Iterable[Source]) -> Settings:
    values = dict(given)
    origins = {name: f"{name.upper()}, given as an option" for name in given}
    for source in sources:
        for name in Settings.model_fields:
            if name not in values and (found := source.find(name.upper())):
                variable, values[name] = found
                origins[name] = f"{variable} in {source.name}"
    try:
        return Settings.model_validate(values)
    except ValidationError as exc:
        raise ConfigurationError(_explain(exc, origins)) from exc


def _explain(exc: ValidationError, origins: Mapping[str, str]) -> str:
    lines: list[str] = []
    for error in exc.errors(include_input=False, include_url=False):
        field = str(error["loc"][0]) if error["loc"] else ""
        # For our own validators, without pydantic's prefix "Value error, ".
        reason = error["ctx"]["error"] if error["type"] == "value_error" else error["msg"]
        lines.append(f"{origins.get(field, field.upper())}: {reason}" if field else str(reason))
    return "The configuration is not valid. " + "; ".join(lines)


def read_secrets(path: Path) -> dict[str, str]:
    """The variables of a secrets file; empty if it does not exist. Raises ConfigurationError."""
    return read_env_file(path) if _exists(path) else {}


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as exc:
        raise ConfigurationError(f"DATA_DIR: {path} cannot be read: {exc.strerror}.") from exc
