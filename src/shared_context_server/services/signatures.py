"""Sign exported files with Ed25519 (RFC 8032), and check such signatures.

Keys are PEM files as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING

from shared_context_server.errors import ConfigurationError, CopyError
from shared_context_server.models import JsonObject

if TYPE_CHECKING:  # it takes a quarter of a second to import
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE = "signature"
ALGORITHM = "ed25519"

_MAX_KEY_BYTES = 64 * 1024
# So that a signature of a file is no signature of anything else.
_PURPOSE = b"shared-context-server exported file 1\n"


class SignatureWrong(CopyError):
    """The signature of a file is not one, or not of this file, or not of the expected key."""


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a key to sign with. Raises ConfigurationError."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(_read(path), None)
    except TypeError as exc:
        raise ConfigurationError(
            f"{path} is encrypted with a password. Write the key without one: openssl pkey -in {path}"
        ) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigurationError(_explain(path, "private")) from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(_explain(path, "private"))
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a key to check with. Raises ConfigurationError."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_public_key,
    )

    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigurationError(_explain(path, "public")) from exc
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(_explain(path, "public"))
    return key


def make_signature(key: Ed25519PrivateKey, head: str) -> JsonObject:
    """Return the record that signs a file whose chain ends with `head`."""
    return {
        "record": SIGNATURE,
        "algorithm": ALGORITHM,
        "public_key": spell_key(key.public_key()),
        "signature": base64.b64encode(key.sign(_PURPOSE + head.encode())).decode(),
    }


def check_signature(record: JsonObject, head: str, expected: Ed25519PublicKey | None) -> str:
    """Check the signature of a file whose chain ends with `head`; return the public key as text. Without
    `expected` any key will do. Raises SignatureWrong."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    if record.get("algorithm") != ALGORITHM:
        raise SignatureWrong(f"The signature is not of the algorithm {ALGORITHM}.")
    try:
        key = Ed25519PublicKey.from_public_bytes(_decode(record.get("public_key")))
        signature = _decode(record.get("signature"))
    except ValueError as exc:
        raise SignatureWrong("The signature is not readable.") from exc
    if expected is not None and spell_key(key) != spell_key(expected):
        raise SignatureWrong("The file is signed with another key than the one of --public-key.")
    try:
        key.verify(signature, _PURPOSE + head.encode())
    except InvalidSignature as exc:
        raise SignatureWrong("The signature does not match: the file was changed.") from exc
    return spell_key(key)


def spell_key(key: Ed25519PublicKey) -> str:
    """Return the 32 bytes of a public key as base64."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def _decode(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("not a text")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}.") from exc


def _explain(path: Path, kind: str) -> str:
    command = "openssl genpkey -algorithm ed25519 -out FILE"
    if kind == "public":
        command = "openssl pkey -in KEYFILE -pubout -out FILE"
    return f"{path} is not a {kind} Ed25519 key in a PEM file. Make one with: {command}"
