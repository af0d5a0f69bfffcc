"""Static files of the dashboard, served with a hash of their content in the address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.types import Receive, Scope, Send

from shared_context_server.errors import MethodNotAllowed, RouteNotFound
from shared_context_server.ui.headers import NO_STORE

STATIC_PATH = "/static/{digest}/{name}"
_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_DIGEST_CHARS = 16
_IMMUTABLE = (b"cache-control", b"public, max-age=31536000, immutable")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file with its type, and the hash that stands in its address."""

    content: bytes
    content_type: bytes
    digest: str


def load_static_files() -> dict[str, StaticFile]:
    """Read all files that are served, by name. Licences and checksums are not."""
    files = {}
    for path in sorted(_FOLDER.iterdir()):
        content_type = _TYPES.get(path.suffix)
        if content_type is not None:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:_DIGEST_CHARS]
            files[path.name] = StaticFile(content, content_type, digest)
    return files


async def send_static(files: dict[str, StaticFile], scope: Scope, _: Receive, send: Send) -> None:
    """Answer with the file of this name. Nothing but the files in the table can be asked for.

    An address with another hash comes from a page of another version, during an upgrade. It gets the
    file there is, not to be stored. Raises RouteNotFound and MethodNotAllowed.
    """
    if scope["method"] not in ("GET", "HEAD"):
        raise MethodNotAllowed(scope["method"], scope["path"], ["GET", "HEAD"])
    file = files.get(scope["path_params"]["name"])
    if file is None:
        raise RouteNotFound(scope["path"][:200])
    is_current = scope["path_params"]["digest"] == file.digest
    headers = [
        (b"content-type", file.content_type),
        (b"content-length", b"%d" % len(file.content)),
        _IMMUTABLE if is_current else NO_STORE,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": file.content})
