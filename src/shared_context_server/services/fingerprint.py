"""Compute a short digest of an idempotent call's arguments."""

from __future__ import annotations

import hashlib
import json


def fingerprint(*parts: object) -> str:
    """Return a digest of JSON values. Equal values have equal digests, whatever the order of object
    keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
