"""The command `verify`: checks an exported file, without a server and without importing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from cyclopts import Parameter

from shared_context_server.cli.exported_files import PublicKeyOption, open_input
from shared_context_server.cli.hub.options import AsJson
from shared_context_server.cli.progress import ProgressBar
from shared_context_server.cli.show.values import note, print_json
from shared_context_server.errors import CopyError
from shared_context_server.remote import exits
from shared_context_server.services.dumps import DumpSource, is_dump
from shared_context_server.services.exported_logs import check_log
from shared_context_server.services.signatures import read_public_key

if TYPE_CHECKING:  # see services.signatures
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def verify(
    file: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="A file of export, of audit export, or a session's JSONL from the dashboard; - is stdin.",
        ),
    ],
    *,
    public_key: PublicKeyOption = None,
    as_json: AsJson = False,
) -> int:
    """Check an exported file: its hash chain and its signature. Exit code 1 if it was changed.

    A file without a signature, or with one that is not compared with --public-key, may have been
    written anew as a whole.
    """
    expected = None if public_key is None else read_public_key(public_key)
    try:
        with open_input(file) as content:
            found = _check(content, expected)
    except CopyError as exc:
        if not as_json:
            raise
        print_json({"ok": False, "problem": str(exc)})
        return exits.FAILED
    if as_json:
        print_json({"ok": True, **found})
        return exits.DONE
    note(f"{file} is as it was written: {found['what']}, {found['count']} records.")
    if found["signed_by"] is None:
        note("It is not signed: whoever can write the file could have written it anew.")
    elif expected is None:
        note(f"It is signed with the key {found['signed_by']}. Give --public-key to compare it.")
    else:
        note("It is signed with the key of --public-key.")
    print(found["head"])
    return exits.DONE


def _check(content: BinaryIO, expected: Ed25519PublicKey | None) -> dict[str, Any]:
    """Return what the file is. Raises CopyError, which says what is wrong and where."""
    if not is_dump(content):
        return check_log(content, expected)
    source = DumpSource(content, expected)
    with ProgressBar() as bar:
        source.check(bar)
    count = sum(source.counts.values())
    return {"what": "dump", "count": count, "head": source.head, "signed_by": source.signed_by}
