"""Asks a server for its health without a credential, and whether it takes one."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from shared_context_server.remote.access import Access, AccessError
from shared_context_server.remote.calls import CallError, get_json

TIMEOUT_S = 5.0
REFUSAL_S = 2.0
READING_PATH = (
    "/fleet?limit=1"  # needs a key that may read, calls no tool and leaves no agent behind
)
KEY_HEADER = "X-API-Key"
_NAME_HEADERS = ("X-Agent-ID", "X-Agent-Type")
STORAGE_FULL = ", but what adds data is refused: only the reserve of the disk is left"


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer to a probe. `is_ours`: it is the one of a server of this program that is well.
    `answers`: something listens there. `text`: the status in words."""

    is_ours: bool
    answers: bool
    text: str


def probe(url: str, path: str, timeout_s: float = TIMEOUT_S) -> Probe:
    """GET /health or /ready."""
    address = urlsplit(url)
    try:
        with contextlib.closing(
            http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
        ) as connection:
            connection.request("GET", f"{address.path.rstrip('/')}{path}")
            answer = connection.getresponse()
            body = answer.read()
    except http.client.HTTPException as exc:
        return Probe(False, True, f"no answer ({exc})")
    except OSError as exc:
        return Probe(False, False, f"no answer: {exc.strerror or exc}")
    except UnicodeError as exc:
        return Probe(False, False, f"no answer ({exc})")
    if answer.status != HTTPStatus.OK:
        return Probe(False, True, f"{answer.status} {answer.reason}{_find_reason(body)}")
    try:
        found = json.loads(body)
        full = STORAGE_FULL if found.get("storage_full") else ""
        return Probe(True, True, f"{found['status']}{full}")
    except (ValueError, KeyError, TypeError, AttributeError):
        return Probe(False, True, "answers, but not as this server does")


def find_refusal(url: str, key: str, agent_id: str) -> CallError | None:
    """Why the server refuses this key or this agent; None if it takes them, or cannot be asked.

    The key is sent to a server of this program only.
    """
    deadline = time.monotonic() + REFUSAL_S
    if not probe(url, "/health", REFUSAL_S / 2).is_ours:
        return None
    try:
        get_json(Access(url, key, agent_id), READING_PATH, deadline)
    except CallError as exc:
        # A key that may only write is refused for another reason.
        return exc if exc.field in (KEY_HEADER, *_NAME_HEADERS) else None
    except (OSError, ValueError, AccessError):
        return None
    return None


def _find_reason(body: bytes) -> str:
    """Return what the server says of its failure; '' if it says nothing, or is another program."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    is_ours = isinstance(found, dict) and {"code", "error"} <= found.keys()
    return ": " + str(found["error"]).removesuffix(".") if is_ours else ""
