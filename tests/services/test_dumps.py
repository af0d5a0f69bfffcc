"""The dump: whole, or refused; the same bytes for the same data."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared_context_server.models import Permission, TaskState
from shared_context_server.services.dumps import DumpDamaged, DumpSource, write_dump
from shared_context_server.services.moving import Moved, move
from shared_context_server.services.signatures import SignatureWrong, spell_key
from shared_context_server.settings import Settings
from shared_context_server.storage import open_copier, open_storage
from shared_context_server.storage.codec import Row, encode_json, encode_permissions
from shared_context_server.storage.transfer.lines import Tally, parse_line, to_line, to_row
from shared_context_server.storage.transfer.records import (
    COUNTER,
    KINDS,
    KINDS_BY_NAME,
    MESSAGE,
    SESSION,
    RecordKind,
)
from tests.storage.builders import add_message, add_session, at, make_audit
from tests.storage.filled import fill


class Unwatched:
    def begin(self, stage: str, total: int | None) -> None:
        pass

    def advance(self, count: int) -> None:
        pass


def store_at(path: Path) -> Settings:
    return Settings(data_dir=path, database_url=None)


async def export(
    settings: Settings, *, is_compressed: bool = False, key: Ed25519PrivateKey | None = None
) -> bytes:
    file = io.BytesIO()
    async with open_copier(settings, read_only=True) as copier, copier.open_snapshot() as snapshot:
        await write_dump(snapshot, file, Unwatched(), is_compressed=is_compressed, key=key)
    return file.getvalue()


async def import_dump(dump: bytes, settings: Settings) -> Moved:
    source = DumpSource(io.BytesIO(dump))
    source.check(Unwatched())
    async with open_copier(settings, read_only=False) as copier:
        return await move(source, copier, Unwatched())


def check(dump: bytes) -> None:
    DumpSource(io.BytesIO(dump)).check(Unwatched())


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of a store with something of everything."""
    settings = store_at(tmp_path_factory.mktemp("dumped"))

    async def make() -> bytes:
        async with open_storage(settings) as store:
            await fill(store)
        return await export(settings)

    return asyncio.run(make())


def without_header(dump: bytes) -> bytes:
    """The header tells when it was made."""
    return dump.split(b"\n", 1)[1]


# Whole


async def test_an_imported_dump_is_exported_as_the_same_bytes(dump: bytes, tmp_path: Path) -> None:
    moved = await import_dump(dump, store_at(tmp_path))
    assert moved.is_equal
    assert without_header(await export(store_at(tmp_path))) == without_header(dump)
    assert (await import_dump(dump, store_at(tmp_path))).written == 0


async def test_a_compressed_dump_is_the_same_dump(dump: bytes, tmp_path: Path) -> None:
    await import_dump(gzip.compress(dump), store_at(tmp_path))
    packed = await export(store_at(tmp_path), is_compressed=True)
    assert without_header(gzip.decompress(packed)) == without_header(dump)


def test_every_line_is_an_object_that_says_what_it_is(dump: bytes) -> None:
    header, *records, footer = map(json.loads, dump.splitlines())
    assert (header["format"], header["version"]) == ("shared-context-export", 1)
    names = [record["record"] for record in records]
    assert list(dict.fromkeys(names)) == [kind.name for kind in KINDS]
    assert footer["record"] == "footer"
    assert {name: kind["count"] for name, kind in footer["kinds"].items()} == {
        kind.name: names.count(kind.name) for kind in KINDS
    }


def test_times_are_rfc_3339_and_json_is_json(dump: bytes) -> None:
    records = [json.loads(line) for line in dump.splitlines()]
    message = next(r for r in records if r.get("record") == "message" and r["seq"] == 2)
    assert message["created_at"] == "2026-03-01T12:00:01.123456Z"
    assert message["recipients"] == ["bob"]
    assert message["metadata"] == {"deep": {"list": [1, 2.0, "x", None, True]}}
    memory = [record for record in records if record.get("record") == "memory"]
    assert {record["owner"] for record in memory} == {None, "alice"}
    assert {record["session_id"] for record in memory} == {None, "open"}


def test_no_key_is_in_a_dump(dump: bytes) -> None:
    assert b"scs_" not in dump
    assert b"agt_" not in dump


def test_the_format_s_specification_has_every_kind_and_field() -> None:
    page = (Path(__file__).parents[2] / "docs/moving.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| ([\w, ]+) \|$", page, re.MULTILINE)
    assert table[1:] == [
        (kind.name, ", ".join(kind.key), ", ".join(kind.columns)) for kind in KINDS
    ]


# Damaged


def test_a_dump_that_is_cut_off_is_refused_anywhere(dump: bytes) -> None:
    for length in range(0, len(dump), 97):
        with pytest.raises(DumpDamaged):
            check(dump[:length])
    check(dump)


def test_a_dump_that_is_cut_off_tells_how_far_it_came(dump: bytes) -> None:
    lines = dump.splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"message"' in line)
    with pytest.raises(DumpDamaged, match=rf"cut off.*{place + 1} records .*message id=2\)"):
        check(b"".join(lines[: place + 2]))
    with pytest.raises(DumpDamaged, match=rf"line {place + 2} has no end.*message id=1\)"):
        check(b"".join(lines[: place + 2])[:-1])


def test_a_compressed_dump_that_is_cut_off_or_altered_is_refused(dump: bytes) -> None:
    packed = gzip.compress(dump)
    for length in range(2, len(packed), 53):
        with pytest.raises(DumpDamaged):
            check(packed[:length])
        with pytest.raises(DumpDamaged):
            check(packed[:length] + bytes([packed[length] ^ 4]) + packed[length + 1 :])


@given(st.data())
@hypothesis_settings(deadline=None)
def test_an_altered_byte_is_found(dump: bytes, data: st.DataObject) -> None:
    start = dump.index(b"\n") + 1
    place = data.draw(st.integers(start, len(dump) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != dump[place]))
    with pytest.raises(DumpDamaged):
        check(dump[:place] + bytes([byte]) + dump[place + 1 :])


def swap_lines(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def drop_line(lines: list[bytes]) -> None:
    del lines[-2]  # the last record


def double_line(lines: list[bytes]) -> None:
    lines.insert(1, lines[1])


def add_behind(lines: list[bytes]) -> None:
    lines.append(lines[1])


def use_spaces(lines: list[bytes]) -> None:
    lines[1] = json.dumps(json.loads(lines[1])).encode() + b"\n"


def add_field(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"id"', b'"extra":1,"id"')


def add_nan(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"metadata":{}', b'"metadata":{"x":NaN}')


def name_no_kind(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"session"', b'"sausage"')


@pytest.mark.parametrize(
    "alter, says",
    [
        (swap_lines, "is out of order"),
        (drop_line, "counts or checksums do not match for: counter"),
        (double_line, "is out of order"),
        (add_behind, "data after its footer"),
        (use_spaces, "Line 2: is not written in the canonical form"),
        (add_field, "Line 2: is not a valid session: missing or unknown extra"),
        (add_nan, "Line 2: is not JSON"),
        (name_no_kind, "Line 2: is of an unknown kind: 'sausage'"),
    ],
)
def test_a_dump_that_was_edited_is_refused(
    dump: bytes, alter: Callable[[list[bytes]], None], says: str
) -> None:
    lines = dump.splitlines(keepends=True)
    alter(lines)
    with pytest.raises(DumpDamaged, match=says):
        check(b"".join(lines))


def sign(lines: list[bytes]) -> bytes:
    """The records as a dump, with the header and footer that they ought to have."""
    tallies = {kind.name: Tally() for kind in KINDS}
    for line in lines:
        tallies[parse_line(line)["record"]].add(line)
    kinds = {
        name: {"count": tally.count, "sha256": tally.sha256} for name, tally in tallies.items()
    }
    header = {"format": "shared-context-export", "version": 1}
    footer = {"record": "footer", "kinds": kinds}
    return b"".join(
        [json.dumps(header).encode(), b"\n", *lines, json.dumps(footer).encode(), b"\n"]
    )


def swap_seqs(line: bytes) -> bytes:
    swapped = {b'"seq":1,': b'"seq":2,', b'"seq":2,': b'"seq":1,'}
    return re.sub(rb'"seq":[12],', lambda match: swapped[match[0]], line)


def skip_a_seq(line: bytes) -> bytes:
    return line.replace(b'"seq":2,', b'"seq":9,')


def leave_the_sessions(line: bytes) -> bytes:
    return line.replace(b'"session_id":"open"', b'"session_id":"none"')


@pytest.mark.parametrize(
    "alter, says",
    [
        (swap_seqs, "session 'open' continues with seq 2 instead of 1"),
        (skip_a_seq, "session 'open' continues with seq 9 instead of 2"),
        (leave_the_sessions, "the message id=1 has no session in the dump"),
    ],
)
def test_a_log_that_no_store_could_have_written_is_refused(
    dump: bytes, alter: Callable[[bytes], bytes], says: str
) -> None:
    """Though all counts and checksums are right, as in a dump that was made by other means."""
    records = dump.splitlines(keepends=True)[1:-1]
    check(sign(records))
    with pytest.raises(DumpDamaged, match=says):
        check(sign([alter(line) if b'"record":"message"' in line else line for line in records]))


async def test_a_log_that_begins_later_is_whole_in_a_dump(tmp_path: Path) -> None:
    settings = store_at(tmp_path / "source")
    async with open_storage(settings) as store:
        await add_session(store)
        for number in range(5):
            await add_message(store, created_at=at(number))
        await store.expiry.remove_some("session_1", at(3), lambda *_: make_audit())
    dump = await export(settings)
    check(dump)
    assert b'"first_seq":4,"expired_up_to":3,"removed_id":3,"removed_at":' in dump
    assert (await import_dump(dump, store_at(tmp_path))).is_equal
    assert without_header(await export(store_at(tmp_path))) == without_header(dump)
    records = dump.splitlines(keepends=True)[1:-1]
    for told in (b'"first_seq":3', b'"first_seq":5'):
        with pytest.raises(DumpDamaged, match="continues with seq 4 instead of"):
            check(sign([line.replace(b'"first_seq":4', told) for line in records]))


def test_another_version_of_the_format_is_refused(dump: bytes) -> None:
    with pytest.raises(DumpDamaged, match="version 2"):
        check(dump.replace(b'"version":1', b'"version":2', 1))


@pytest.mark.parametrize("junk", [b"", b"\n", b"{}\n", b"hello", b"\x1f\x8b", b"\x1f\x8bhello"])
def test_what_is_no_dump_is_refused(junk: bytes) -> None:
    with pytest.raises(DumpDamaged):
        check(junk)


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("message", "seq", "1"),
        ("message", "seq", True),
        ("message", "id", 2**63),
        ("message", "created_at", "yesterday"),
        ("message", "created_at", "2026-03-01T12:00:00"),
        ("message", "content", None),
        ("message", "recipients", [1]),
        ("message", "recipients", ["\0"]),
        ("message", "visibility", "sausage"),
        ("session", "access", None),
        ("session", "status", "deleting"),
        ("message", "metadata", []),
        ("memory", "owner", ""),
        ("agent", "is_around", 1),
        ("api_key", "permissions", ["fly"]),
        ("api_key", "permissions", None),
    ],
)
def test_a_value_of_another_type_is_refused_by_field(
    dump: bytes, name: str, field: str, value: Any
) -> None:
    line = next(line for line in dump.splitlines() if f'"record":"{name}"'.encode() in line)
    altered = json.dumps(json.loads(line) | {field: value}).encode()
    with pytest.raises(DumpDamaged, match=field):
        check(dump.replace(line, altered, 1))


# The chain and the signature

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
MESSAGES = 2500  # more than two values of the chain


@pytest.fixture(scope="module")
def long_dump(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Signed, of a store with many messages."""
    settings = store_at(tmp_path_factory.mktemp("long"))

    async def make() -> bytes:
        async with open_storage(settings) as store:
            await add_session(store, "open")
            await asyncio.gather(*(add_message(store, "open") for _ in range(MESSAGES)))
        return await export(settings, key=KEY)

    return asyncio.run(make())


def test_a_change_that_the_other_checks_miss_is_placed_between_two_values_of_the_chain(
    long_dump: bytes,
) -> None:
    """Though the footer was written anew, as somebody does who changes a message."""
    check(long_dump)
    lines = long_dump.splitlines(keepends=True)
    chained = [place for place, line in enumerate(lines) if b'"record":"chain"' in line]
    assert len(chained) == 2
    for place, says in ((5, "lines 2 to 1002 "), (1500, "lines 1003 to 2003 ")):
        altered = lines[:]
        altered[place] = altered[place].replace(b'"content":"hello"', b'"content":"hullo"')
        assert altered[place] != lines[place]
        with pytest.raises(DumpDamaged, match=says) as damaged:
            check(b"".join(altered))
        proved = re.findall(r"The (\d+) records .* before are as they were", str(damaged.value))
        assert proved == ([] if place == 5 else ["1000"])
    with pytest.raises(DumpDamaged, match=r"the first 1000 records .* are as they were"):
        check(b"".join(lines[:1500]))
    with pytest.raises(DumpDamaged, match=r"no footer. The 1000 records .* are as they were"):
        check(b"".join(lines[:1002]))
    records = [line for line in lines[1:-2] if b'"record":"chain"' not in line]
    records[2400] = records[2400].replace(b'"content":"hello"', b'"content":"hullo"')
    footer = json.loads(lines[-2])
    footer["kinds"] = json.loads(sign(records).splitlines()[-1])["kinds"]
    with_marks = [*lines[:1], *records[:1000], lines[1001], *records[1000:2000], lines[2002]]
    forged = [*with_marks, *records[2000:], json.dumps(footer).encode() + b"\n"]
    with pytest.raises(DumpDamaged, match="something in the lines 2004 to 2"):
        check(b"".join(forged))


def test_a_signed_dump_is_of_who_has_the_key(long_dump: bytes, dump: bytes) -> None:
    def check_key(content: bytes, key: Ed25519PrivateKey) -> DumpSource:
        source = DumpSource(io.BytesIO(content), key.public_key())
        source.check(Unwatched())
        return source

    assert check_key(long_dump, KEY).signed_by == spell_key(KEY.public_key())
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    with pytest.raises(SignatureWrong, match="another key"):
        check_key(long_dump, other)
    with pytest.raises(SignatureWrong, match="not signed"):
        check_key(dump, KEY)
    signature = long_dump.splitlines(keepends=True)[-1]
    with pytest.raises(SignatureWrong, match="does not match"):
        check(dump + signature)


def test_a_dump_of_an_older_version_has_no_chain_and_fewer_kinds_and_fields(dump: bytes) -> None:
    """Kinds and fields that were added later are left out, and the first line is of that time."""
    later = {b"audit_chain", b"task"}
    records = [
        re.sub(rb',"hash":"\w+"', b"", line)
        for line in dump.splitlines(keepends=True)[1:-1]
        if not any(b'{"record":"%b"' % name in line for name in later)
    ]
    older = json.loads(sign(records).splitlines()[-1])
    older["kinds"] = {name: of for name, of in older["kinds"].items() if name.encode() not in later}
    header = sign(records).splitlines(keepends=True)[0]
    check(b"".join([header, *records, json.dumps(older).encode(), b"\n"]))


def test_a_dump_in_which_later_fields_are_null_is_whole(dump: bytes) -> None:
    """Versions up to the hash chain have written them so."""
    records = [
        to_line(kind, to_row(kind, fields), has_all_nulls=True)
        for fields in map(parse_line, dump.splitlines(keepends=True)[1:-1])
        if (kind := KINDS_BY_NAME.get(str(fields["record"]))) is not None
    ]
    assert any(b":null" in line for line in records)
    check(sign(records))


# Any content

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
names = texts.filter(bool)
integers = st.integers(1, 2**63 - 1)
times = st.integers(0, 250_000_000_000_000_000)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, json_values, max_size=3)
permissions = st.frozensets(st.sampled_from(Permission)).map(encode_permissions)
columns: dict[str, st.SearchStrategy[Any]] = {
    "id": names,
    "access": st.sampled_from(["open", "invited"]),
    "status": st.sampled_from(["active", "closed"]),
    "visibility": st.sampled_from(["public", "private", "agent_only", "admin_only"]),
    "closed_at": st.none() | times,
    "revoked_at": st.none() | times,
    "last_used_at": st.none() | times,
    "parent_message_id": st.none() | integers,
    "holder": st.none() | texts,
    "session_id": st.sampled_from(["", "s", "nowhere"]),
    "permissions": permissions,
    "is_around": st.booleans(),
    "value": json_values.map(encode_json),
    **dict.fromkeys(("created_at", "updated_at", "expires_at", "acquired_at"), times),
    **dict.fromkeys(("first_seen", "last_seen", "issued_at"), times),
    **dict.fromkeys(("seq", "version", "fencing_token", "last_id"), integers),
    **dict.fromkeys(("first_seq", "expired_up_to", "removed_id"), integers),
    "removed_at": st.none() | times,
    "size_bytes": st.integers(1, 2**40),  # what one agent has stored is summed up
    **dict.fromkeys(
        ("invited", "recipients", "paths"),
        st.lists(texts.filter(lambda text: "\0" not in text), max_size=3).map(encode_json),
    ),
    **dict.fromkeys(("metadata", "answer", "details"), objects.map(encode_json)),
}


def rows_of(kind: RecordKind) -> st.SearchStrategy[list[Row]]:
    fields = {name: columns.get(name, texts) for name in kind.columns}
    if kind.name in {"message", "audit"}:
        fields["id"] = integers
    if kind.name == "task":
        fields |= dict.fromkeys(("id", "priority", "waiting_for"), integers)
        fields["depends_on"] = st.lists(integers, max_size=3, unique=True).map(encode_json)
        fields["result"] = columns["value"]
        fields["finished_at"] = columns["closed_at"]
        fields["state"] = st.sampled_from([*TaskState])
    if kind.name == "audit_chain":
        fields |= {"id": st.just(1), "start_id": integers, "anchor_id": integers}
        fields["head_id"] = integers
    if kind.name == "message":
        fields["ack"] = st.sampled_from(["", "required"])
    if kind.name in {"message", "cursor", "task"}:
        fields["session_id"] = st.just("s")
    row = st.tuples(*fields.values())
    unique = [kind.key_of]
    if kind.name == "credential":
        unique.append(lambda row: row[5])
    rows = st.lists(row, max_size=4, unique_by=tuple(unique))
    if kind is SESSION:
        return rows.map(lambda rows: [S, *(row for row in rows if row[0] != S[0])])
    if kind is MESSAGE:
        return rows.map(number_log)
    return rows


def number_log(rows: list[Row]) -> list[Row]:
    """The messages of one session with the seqs that a store would give them."""
    rows = sorted(rows, key=MESSAGE.key_of)
    return [(*row[:2], seq, *row[3:]) for seq, row in enumerate(rows, 1)]


S: Row = (
    "s",
    "p",
    "open",
    "active",
    "a",
    0,
    None,
    "[]",
    "{}",
    1,
    0,
    0,
    None,
)  # others are written in it


@given(st.fixed_dictionaries({kind: rows_of(kind) for kind in KINDS if kind is not COUNTER}))
@hypothesis_settings(max_examples=20, deadline=None)
def test_any_content_comes_through_unchanged(content: dict[RecordKind, list[Row]]) -> None:
    async def there_and_back(path: Path) -> tuple[bytes, bytes]:
        source, destination = store_at(path / "a"), store_at(path / "b")
        async with open_copier(source, read_only=False) as copier:
            for kind in KINDS:
                await copier.write_rows(kind, content.get(kind, []), [])
        dump = await export(source)
        assert (await import_dump(dump, destination)).is_equal
        return dump, await export(destination)

    with tempfile.TemporaryDirectory() as name:
        first, second = asyncio.run(there_and_back(Path(name)))
    assert without_header(first) == without_header(second)
    for line in without_header(first).splitlines(keepends=True)[:-1]:
        record = parse_line(line)
        kind = KINDS_BY_NAME[str(record["record"])]
        assert to_line(kind, to_row(kind, record)) == line
