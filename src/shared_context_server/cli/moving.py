"""The commands `export`, `import` and `migrate --from`: copy a whole store to or from a file, or to
another store."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from shared_context_server.cli.banner import without_password
from shared_context_server.cli.exported_files import (
    STANDARD_STREAM,
    PublicKeyOption,
    SignOption,
    open_input,
    open_output,
)
from shared_context_server.cli.hub.options import AsJson
from shared_context_server.cli.older_server import OlderServer, open_older_server
from shared_context_server.cli.options import StorageOptions
from shared_context_server.cli.progress import ProgressBar
from shared_context_server.cli.show.values import print_json
from shared_context_server.display import show_name
from shared_context_server.errors import ConfigurationError, CopyError
from shared_context_server.services.dumps import DumpDamaged, DumpSource, write_dump
from shared_context_server.services.moving import Moved, Source, copy_store, move
from shared_context_server.services.signatures import (
    SignatureWrong,
    read_private_key,
    read_public_key,
)
from shared_context_server.settings import Settings
from shared_context_server.storage import open_copier
from shared_context_server.storage.transfer.lines import Tally
from shared_context_server.storage.transfer.records import COUNTER, RecordKind

_DIGEST_CHARS = 12  # shown of a checksum: enough to see a difference


async def export(
    file: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True, help="The file to write; .gz compresses; - is stdout."
        ),
    ],
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    force: Annotated[bool, Parameter(negative="", help="Replace the file if it exists.")] = False,
    sign: SignOption = None,
    as_json: AsJson = False,
) -> None:
    """Write a consistent snapshot of all data to a file. The server can keep running."""
    if as_json and file == STANDARD_STREAM:
        raise ConfigurationError("--json needs a FILE: with - the records go to stdout.")
    settings = options.load()
    key = None if sign is None else read_private_key(sign)
    async with open_copier(settings, read_only=True) as copier, copier.open_snapshot() as snapshot:
        with open_output(file, force=force) as out, ProgressBar() as bar:
            is_compressed = file.endswith(".gz")
            written = await write_dump(snapshot, out, bar, is_compressed=is_compressed, key=key)
    if as_json:
        records = {kind.name: one.count for kind, one in written.tallies.items()}
        print_json({"file": file, "records": records, "head": written.head})
    else:
        count = _count(written.tallies)
        _say(f"Exported {count} records from {without_password(settings.storage_url)}.")
        _say(f"Last hash of the file's chain: {written.head}")


async def import_(
    file: Annotated[
        str | None,
        Parameter(allow_leading_hyphen=True, help="A file that export has written; - is stdin."),
    ] = None,
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    from_shared_context: Annotated[
        Path | None, Parameter(help="The SQLite file of the older shared-context server instead.")
    ] = None,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Check the file, print what it has, write nothing.")
    ] = False,
    public_key: PublicKeyOption = None,
    as_json: AsJson = False,
) -> None:
    """Read such a file into a store that is empty or holds a part of the same import.

    The file is checked before anything is written. The store is checked afterwards.
    """
    if (file is None) == (from_shared_context is None):
        raise ConfigurationError("Name one file to import: FILE, or --from-shared-context FILE.")
    if from_shared_context is not None:
        if public_key is not None:
            raise ConfigurationError("--public-key: files of the older server are not signed.")
        await _import_older(from_shared_context, options, dry_run=dry_run, as_json=as_json)
        return
    assert file is not None
    expected = None if public_key is None else read_public_key(public_key)
    with open_input(file) as dump, ProgressBar() as bar:
        source = DumpSource(dump, expected)
        with _telling("Nothing was imported."):
            source.check(bar)
        with _telling(
            "The file has changed since it was checked. The database may have the records before: repeat the "
            "import with a whole file."
        ):
            moved = None if dry_run else await _move(source, options, bar)
    if moved is None:
        _print_counts(source.counts, as_json=as_json)
    else:
        _report(moved, as_json=as_json)


@contextmanager
def _telling(outcome: str) -> Iterator[None]:
    """Add to the error of a damaged file what that means for the database."""
    try:
        yield
    except (DumpDamaged, SignatureWrong) as exc:
        raise CopyError(f"{exc} {outcome}") from exc


async def _import_older(
    path: Path, options: StorageOptions, *, dry_run: bool, as_json: bool
) -> None:
    with open_older_server(path) as source, ProgressBar() as bar:
        await source.read_all(bar)
        moved = None if dry_run else await _move(source, options, bar)
    _tell_remarks(source)
    if moved is None:
        _print_counts(source.taken, as_json=as_json)
    else:
        _report(moved, as_json=as_json)


async def _move(source: Source, options: StorageOptions, bar: ProgressBar) -> Moved:
    async with open_copier(options.load(), read_only=False) as copier:
        return await move(source, copier, bar)


async def copy_database(source: Settings, destination: Settings, *, as_json: bool = False) -> None:
    """Copy one database to another, verify it, and print how they compare. Raises CopyError."""
    if source.storage_url == destination.storage_url:
        raise ConfigurationError("--from and --to name the same database.")
    async with (
        open_copier(source, read_only=True) as origin,
        open_copier(destination, read_only=False) as copier,
    ):
        with ProgressBar() as bar:
            moved = await copy_store(origin, copier, bar)
    _report(moved, as_json=as_json)


def _report(moved: Moved, *, as_json: bool) -> None:
    """Print how source and destination compare. Raises CopyError if they differ."""
    if as_json:
        print_json(_describe(moved))
    else:
        _print_comparisons(moved)
    if not moved.is_equal:
        raise CopyError(
            "The destination differs from the source: something else wrote to it during the copy. "
            "Stop the servers of both, then run this again."
        )
    if moved.has_source_gone_on:
        raise CopyError(
            "The source changed during the copy: the destination has its state at the start. Stop its "
            "servers, then run this again to copy the rest."
        )


def _describe(moved: Moved) -> dict[str, Any]:
    return {
        "kinds": [
            {
                "kind": one.kind.name,
                "source": one.source.count,
                "destination": one.destination.count,
                "sha256": one.source.sha256,
                "is_equal": one.source.sha256 == one.destination.sha256,
            }
            for one in moved.comparisons
        ],
        "written": moved.written,
        "replaced_nul": moved.replaced_nul,
        "is_equal": moved.is_equal,
        "has_source_gone_on": moved.has_source_gone_on,
    }


def _print_comparisons(moved: Moved) -> None:
    print(f"{'kind':<12} {'source':>10} {'destination':>12}  checksum")
    for comparison in moved.comparisons:
        ours, theirs = comparison.source, comparison.destination
        checksum = f"{ours.sha256[:_DIGEST_CHARS]} equal"
        if ours.sha256 != theirs.sha256:
            checksum = f"{ours.sha256[:_DIGEST_CHARS]} DIFFERS {theirs.sha256[:_DIGEST_CHARS]}"
        print(f"{comparison.kind.name:<12} {ours.count:>10} {theirs.count:>12}  {checksum}")
    total = _count({comparison.kind: comparison.source for comparison in moved.comparisons})
    _say(f"{total} records: {moved.written} written or updated, the others were already there.")
    if moved.replaced_nul:
        _say(
            f"{moved.replaced_nul} characters U+0000 were replaced by U+FFFD: the destination cannot "
            "store them."
        )


def _tell_remarks(source: OlderServer) -> None:
    for (kind, text), remark in source.remarks.items():
        names = ", ".join(map(show_name, remark.names))
        more = ", …" if remark.count > len(remark.names) else ""
        _say(f"{kind.name}: {remark.count} × {text} ({names}{more})")


def _print_counts(counts: Mapping[RecordKind, int], *, as_json: bool) -> None:
    if as_json:
        print_json({"records": {kind.name: count for kind, count in counts.items()}})
        return
    for kind, count in counts.items():
        if kind is not COUNTER:
            print(f"{kind.name:<12} {count:>10}")
    _say("Nothing was written.")


def _count(tallies: Mapping[RecordKind, Tally]) -> int:
    return sum(tally.count for kind, tally in tallies.items() if kind is not COUNTER)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
