"""What an idempotent call asked for, as a short digest."""

from __future__ import annotations

import hashlib
import json


def fingerprint(*parts: object) -> str:
    """Of JSON values: equal for equal ones, whatever the order of their object keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
