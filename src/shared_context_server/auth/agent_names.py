"""The names agents go by, as they come from headers and clients."""

from __future__ import annotations

import unicodedata

from pydantic import TypeAdapter, ValidationError

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import MAX_AGENT_ID_CHARS, AgentId

_AGENT_ID: TypeAdapter[str] = TypeAdapter(AgentId)


def check_agent_name(name: str, field: str) -> InvalidArgument | None:
    """What is wrong with `name` as an agent's id or type, said of `field`; None if nothing is."""
    try:
        _AGENT_ID.validate_python(name, strict=True)
    except ValidationError as exc:
        reason = exc.errors(include_url=False, include_input=False)[0]["msg"]
        return InvalidArgument(f"{field}: {reason}.", field=field)
    return None


def clean_agent_name(name: str) -> str | None:
    """The nearest acceptable name to what a client calls itself; None if nothing is left."""
    printable = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in name)
    cleaned = " ".join(printable.split())[:MAX_AGENT_ID_CHARS].rstrip()
    return cleaned or None
