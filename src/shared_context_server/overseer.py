"""How a message says that it is from the person who oversees the agents: advice, redirect or stop.

The dashboard and `scs post` write it, and digests, hooks and `scs tail` show it. It is a label that
every writer can set, no credential.
"""

from __future__ import annotations

OVERSEER = "overseer"
"""The member of the metadata. `type` has the same value, as with all kinds of messages."""
KINDS = ("advice", "redirect", "stop")

_TYPE = "type"

TYPE_CHECKING = False
if TYPE_CHECKING:  # the hook imports this, and hardly anything else
    from collections.abc import Mapping
    from typing import Any


def mark_kind(kind: str) -> dict[str, str]:
    """The metadata of a message of this kind, which need not be one of KINDS."""
    return {_TYPE: kind, OVERSEER: kind} if kind in KINDS else {_TYPE: kind}


def find_kind(metadata: Mapping[str, Any]) -> str:
    """Which of KINDS the message is; "" if none."""
    kind = metadata.get(OVERSEER)
    return kind if isinstance(kind, str) and kind in KINDS else ""
