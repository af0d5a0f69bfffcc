"""The filters of a session's log, as they stand in the address of its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Visibility
from shared_context_server.services.session_log import LogFilter
from shared_context_server.steady_time import utc_now

MAX_TEXT_CHARS = 200
MAX_NUMBER_DIGITS = 18
SINCE = {
    "15m": ("Last 15 minutes", timedelta(minutes=15)),
    "1h": ("Last hour", timedelta(hours=1)),
    "24h": ("Last 24 hours", timedelta(hours=24)),
    "7d": ("Last 7 days", timedelta(days=7)),
}
NAMES = ("agent", "visibility", "kind", "text", "since", "from", "to", "thread")


@dataclass(frozen=True, slots=True)
class AddressFilter:
    """The filter of an address, and its parameters as given, to be shown in the form and repeated in
    other addresses of the page."""

    log: LogFilter
    given: dict[str, str]


def read_filter(query: Mapping[str, str]) -> AddressFilter:
    """Read the filter from the parameters of an address. Raises InvalidArgument, naming the one that is
    wrong."""
    given = {name: value for name in NAMES if (value := query.get(name, "").strip())}
    for name, value in given.items():
        if len(value) > MAX_TEXT_CHARS:
            raise InvalidArgument(
                f"{name} has more than {MAX_TEXT_CHARS} characters.",
                field=name,
                suggestion="Shorten it.",
            )
        if "\0" in value:
            raise InvalidArgument(f"{name} must not contain U+0000.", field=name)
    start_time = _read_time(given, "from")
    if "since" in given:
        if given["since"] not in SINCE:
            raise InvalidArgument(f"since must be one of {', '.join(SINCE)}.", field="since")
        start_time = utc_now() - SINCE[given["since"]][1]
    log = LogFilter(
        sender=given.get("agent"),
        visibility=_read_visibility(given),
        start_time=start_time,
        end_time=_read_time(given, "to"),
        text=given.get("text", ""),
        kind=given.get("kind", ""),
        thread=read_number(given, "thread"),
    )
    return AddressFilter(log, given)


def read_number(query: Mapping[str, str], name: str) -> int | None:
    """Return a parameter that is a number, such as a seq; None without it. Raises InvalidArgument."""
    value = query.get(name)
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= MAX_NUMBER_DIGITS):
        raise InvalidArgument(f"{name} must be a number.", field=name)
    return int(value)


def _read_visibility(given: Mapping[str, str]) -> Visibility | None:
    value = given.get("visibility")
    if value is None:
        return None
    try:
        return Visibility(value)
    except ValueError as exc:
        names = ", ".join(Visibility)
        raise InvalidArgument(f"visibility must be one of {names}.", field="visibility") from exc


def _read_time(given: Mapping[str, str], name: str) -> datetime | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as exc:
        raise InvalidArgument(
            f"{name} must be a time such as 2026-11-26T14:30.", field=name
        ) from exc
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
