"""Parses permissions on the command line."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Permission

PermissionList = Annotated[str, Parameter(help="Of read, write, admin; comma-separated.")]


def parse_permissions(text: str) -> list[Permission]:
    """Parse a list such as `read,write`. Raises InvalidArgument for an unknown permission."""
    try:
        return [Permission(name.strip()) for name in text.split(",")]
    except ValueError:
        raise InvalidArgument(
            f"--permissions {text!r}: each must be one of {', '.join(Permission)}.",
            field="permissions",
            suggestion="Separate them with commas.",
        ) from None
