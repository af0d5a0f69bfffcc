"""Read the parameters of an address, within bounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shared_context_server.errors import InvalidArgument
from shared_context_server.ui.page import PageRequest

MAX_ID_CHARS = 128


def read_text(page: PageRequest, name: str, max_chars: int = MAX_ID_CHARS) -> str:
    """Return a parameter of the address without spaces around it, "" if it is missing."""
    return check_text(page.query.get(name, "").strip(), name, max_chars)


def read_choice(query: Mapping[str, str], name: str, choices: Collection[str], usual: str) -> str:
    """Return a parameter that is one of the choices, `usual` if it is missing. Raises InvalidArgument,
    naming the choices."""
    value = query.get(name) or usual
    if value not in choices and value != usual:
        named = ", ".join(choice for choice in choices if choice)
        raise InvalidArgument(f"{name} must be one of {named}.", field=name)
    return value


def check_text(text: str, name: str, max_chars: int = MAX_ID_CHARS) -> str:
    """Return the text. Raises InvalidArgument if it is too long or has U+0000, which no stored text
    has."""
    if len(text) > max_chars:
        raise InvalidArgument(f"{name} may have {max_chars} characters.", field=name)
    if "\0" in text:
        raise InvalidArgument(f"{name} has the character U+0000.", field=name)
    return text
