"""Content negotiation on /mcp: the headers Accept (RFC 9110 section 12.5.1) and Content-Type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from shared_context_server.errors import NotAcceptable, UnsupportedMediaType

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
MAX_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Accepted:
    """Whether the answer may be JSON, and whether it may be an event stream."""

    json: bool
    stream: bool


def read_accept(header: str | None) -> Accepted:
    """Parse an Accept header. Raises NotAcceptable if it allows neither of the two.

    A missing or empty header means */*. A specific range takes precedence over a wider one.
    """
    is_usual = len(header or "") <= MAX_SHOWN_CHARS
    accepted = _read_usual(header) if is_usual else _read(header)
    if not (accepted.json or accepted.stream):
        shown = (header or "")[:MAX_SHOWN_CHARS]
        raise NotAcceptable(
            f"Accept must allow {JSON} or {EVENT_STREAM}, but it is {shown!r}.", field="Accept"
        )
    return accepted


def require_json(header: str | None) -> None:
    """Raise UnsupportedMediaType unless the Content-Type is JSON. Its parameters do not matter."""
    if header == JSON:
        return
    media_type = (header or "").partition(";")[0].strip().lower()
    if media_type != JSON:
        shown = "missing" if header is None else repr(header[:MAX_SHOWN_CHARS])
        raise UnsupportedMediaType(
            f"Content-Type must be {JSON}, but it is {shown}.", field="Content-Type"
        )


def _read(header: str | None) -> Accepted:
    ranges = _parse_ranges(header) or {"*/*": 1.0}
    return Accepted(_allows(ranges, JSON), _allows(ranges, EVENT_STREAM))


_read_usual = lru_cache(maxsize=256)(_read)


def _parse_ranges(header: str | None) -> dict[str, float]:
    """Media ranges with their weights. An invalid weight is 1."""
    ranges = {}
    for part in (header or "").split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if media_range:
            ranges[media_range] = next(map(_read_weight, _weights(parameters)), 1.0)
    return ranges


def _weights(parameters: list[str]) -> list[str]:
    named = (parameter.partition("=") for parameter in parameters)
    return [value.strip() for name, _, value in named if name.strip() == "q"]


def _read_weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _allows(ranges: dict[str, float], media_type: str) -> bool:
    wider = media_type.partition("/")[0] + "/*"
    for media_range in (media_type, wider, "*/*"):
        if media_range in ranges:
            return ranges[media_range] > 0
    return False
