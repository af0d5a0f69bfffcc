"""The settings that bound what callers may use. A base class of Settings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

NO_RATE = "off"
_MOST_ROWS = 10**12
_MOST_MB = 10**9


def _split(value: Any) -> Any:
    """Split the value `a, b` of a variable into a tuple."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]


class LimitSettings(BaseModel):
    """Limits of requests, streams, connections, stored data and the disk. See Settings."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # Requests, streams and connections; each process counts by itself
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, description="Largest request body on any route, bytes."
    )
    rate_limit: str = Field(
        default="120000/minute",
        description=(
            "Requests per process for each key with all its tokens (or each anonymous address); 'off' "
            "for no limit."
        ),
    )
    rate_limit_tools: CommaSeparated = Field(
        default=(),
        description=(
            "The same for calls of single tools, comma-separated: search_context=60/minute; default: "
            "none."
        ),
    )
    failed_auth_limit: str = Field(
        default="600/minute",
        description="Wrong credentials per process for each address; 'off' for no limit.",
    )
    max_connections: int | None = Field(
        default=None,
        ge=16,
        le=1_000_000,
        description="Maximum connections of a process; default: from the limit of open files.",
    )
    max_connections_per_address: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description=(
            "Maximum of these from one address, except loopback and TRUSTED_PROXIES; default: half."
        ),
    )
    max_streams: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Maximum open streams and waiting calls of a process.",
    )
    max_streams_per_agent: int = Field(
        default=1024, ge=1, le=1_000_000, description="Maximum of these for one agent."
    )
    max_streams_per_key: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Maximum of these for all agents of one key; default: three quarters.",
    )

    # What is stored; all processes together
    max_sessions_per_agent: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_ROWS,
        description="Maximum sessions that one agent has created and nobody has deleted; default: none.",
    )
    max_messages_per_session: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_ROWS,
        description="Maximum messages of a session; default: none.",
    )
    max_messages_per_agent: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_ROWS,
        description="Maximum messages of one agent in all sessions; default: none.",
    )
    max_memory_per_session: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_ROWS,
        description="Maximum memory entries of a session, shared and private; default: none.",
    )
    max_memory_per_agent: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_ROWS,
        description="Maximum memory entries that one agent wrote last; default: none.",
    )
    max_mb_per_session: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_MB,
        description="Maximum text of a session's messages, memory and tasks, MiB; default: none.",
    )
    max_mb_per_agent: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_MB,
        description="Maximum text that one agent has stored, MiB; default: none.",
    )
    disk_reserve_mb: int | None = Field(
        default=None,
        ge=0,
        le=_MOST_MB,
        description="Space on the disk of the SQLite file that is left free, MiB: with less, what adds "
        "data is refused; 0: only when the disk is full; default: 50, at most 5% of the disk.",
    )

    @field_validator("rate_limit", "failed_auth_limit", mode="after")
    @classmethod
    def _one_rate(cls, value: str) -> str:
        if not _is_rate(value):
            raise ValueError("must be one rate such as 100/minute, or off")
        return value

    @field_validator("rate_limit_tools", mode="after")
    @classmethod
    def _a_rate_for_each_tool(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [entry.partition("=")[0].strip() for entry in value]
        rates = [entry.partition("=")[2].strip() for entry in value]
        if not all(names) or not all(map(_is_rate, rates)):
            raise ValueError("must be rates of tools such as search_context=60/minute")
        if len(set(names)) < len(names):
            raise ValueError("must name each tool once")
        return value

    @property
    def tool_rates(self) -> dict[str, str]:
        """The rates of RATE_LIMIT_TOOLS by tool."""
        entries = (entry.partition("=") for entry in self.rate_limit_tools)
        return {name.strip(): rate.strip() for name, _, rate in entries}


def _is_rate(text: str) -> bool:
    if text == NO_RATE:
        return True
    # Imported here, because the import is slow and most users do not set a rate.
    from limits import parse_many  # noqa: PLC0415

    try:
        rates = parse_many(text)
    except ValueError:
        return False
    return len(rates) == 1 and rates[0].amount > 0
