"""An embedder that knows a few synonyms: each concept has a direction of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

DIMENSIONS = 128

CONCEPTS = [
    {"login", "sign", "authenticate", "credentials", "password"},
    {"expired", "outdated", "stale", "old"},
    {"car", "vehicle", "automobile", "truck"},
    {"repair", "fix", "mend", "restore"},
    {"crash", "failure", "outage", "breakdown"},
]


class SmallEmbedder:
    """`name`: what the index takes for the model."""

    dimensions = DIMENSIONS

    def __init__(self, name: str = "small") -> None:
        self.name = name
        self.embedded: list[str] = []
        self.fails = False
        self.failures = 0

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if self.fails:
            self.failures += 1
            raise RuntimeError("out of order")
        self.embedded += texts
        return [_embed(text) for text in texts]


def make_embedder() -> SmallEmbedder:
    return SmallEmbedder()


def _embed(text: str) -> list[float]:
    total = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        name = next((min(words) for words in CONCEPTS if word in words), word)
        digest = hashlib.shake_256(name.encode()).digest(DIMENSIONS)
        total = [value + byte - 127.5 for value, byte in zip(total, digest, strict=True)]
    return total
