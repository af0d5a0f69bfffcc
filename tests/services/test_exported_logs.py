"""Files whose lines carry a hash chain: what was changed is found, and where."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic_core import to_json

from shared_context_server.errors import ConfigurationError
from shared_context_server.services.exported_logs import check_log
from shared_context_server.services.line_chain import FileDamaged, LineChain
from shared_context_server.services.signatures import (
    SignatureWrong,
    make_signature,
    read_private_key,
    read_public_key,
    spell_key,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def make_file(*, key: Ed25519PrivateKey | None = None, content: str = "x") -> list[bytes]:
    """The lines of a session's log with five messages."""
    chain = LineChain()
    lines = [
        chain.write(to_json({"id": number, "content": f'{content}","chain":"'}))
        for number in range(1, 6)
    ]
    lines.append(chain.write_end(session_id="s"))
    if key is not None:
        lines.append(to_json(make_signature(key, chain.head)) + b"\n")
    return lines


def check(lines: list[bytes], key: Ed25519PrivateKey | None = None) -> dict[str, object]:
    return check_log(io.BytesIO(b"".join(lines)), None if key is None else key.public_key())


def test_a_file_that_nobody_changed_is_whole() -> None:
    found = check(make_file())
    assert (found["what"], found["count"], found["signed_by"]) == ("session log", 5, None)
    packed = gzip.compress(b"".join(make_file()))
    assert check_log(io.BytesIO(packed), None) == found
    with pytest.raises(FileDamaged, match="compressed"):
        check_log(io.BytesIO(packed[:-9]), None)


def test_the_value_of_a_line_covers_all_lines_before_it() -> None:
    """As docs/moving.md says it: SHA-256 of the value before and of the line without `chain`."""
    assert (
        make_file()[0]
        == b'{"id":1,"content":"x\\",\\"chain\\":\\"","chain":"40f8661d3e79a3a3b62e785ec29e88ca10d070bdcb6529cc22179032edb50abe"}\n'
    )
    assert (
        make_file()[1]
        == b'{"id":2,"content":"x\\",\\"chain\\":\\"","chain":"99a56161b35b029490a52a385341579d24561ba1cf9c24175b5ef46b05634ccd"}\n'
    )


def change(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b'"x', b'"y')


def remove(lines: list[bytes]) -> None:
    del lines[2]


def remove_the_first(lines: list[bytes]) -> None:
    del lines[0]


def swap(lines: list[bytes]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def double(lines: list[bytes]) -> None:
    lines.insert(2, lines[1])


def cut_off(lines: list[bytes]) -> None:
    del lines[-1]


def cut_within(lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:-5]


def drop_the_hash(lines: list[bytes]) -> None:
    lines[2] = b'{"id":3,"content":"x"}\n'


def add_behind(lines: list[bytes]) -> None:
    lines.append(lines[1])


def break_json(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b'{"id"', b'{"id')


def count_less(lines: list[bytes]) -> None:
    chain = LineChain()
    lines[:] = [chain.write(b'{"id":1}'), chain.write(b'{"record":"end","count":2}')]


@pytest.mark.parametrize(
    "alter, says",
    [
        (change, "Line 3 was changed"),
        (remove, "Line 3 was changed or inserted, or a line just before it was removed"),
        (remove_the_first, "Line 1 was changed"),
        (swap, "Line 3 was changed"),
        (double, "Line 3 was changed or inserted"),
        (cut_off, "cut off behind line 5"),
        (cut_within, "line 6 has no end"),
        (drop_the_hash, "Line 3 does not end with the hash"),
        (add_behind, "Line 7 is behind the end"),
        (break_json, "Line 3 is not JSON"),
        (count_less, "Line 2 says that there are 2 lines"),
        (lambda lines: lines.clear(), "cut off behind line 0"),
    ],
)
def test_what_was_altered_is_found_by_line(alter: Callable[[list[bytes]], None], says: str) -> None:
    lines = make_file()
    alter(lines)
    with pytest.raises(FileDamaged, match=says):
        check(lines)


def test_a_signature_tells_a_file_written_anew_from_the_one_that_was_signed() -> None:
    signed = make_file(key=KEY)
    assert check(signed)["signed_by"] == spell_key(KEY.public_key())
    assert check(signed, KEY)["signed_by"] == spell_key(KEY.public_key())
    for lines, says in (
        (make_file(), "not signed"),
        (make_file(key=OTHER), "another key"),
        ([*make_file(content="y"), signed[-1]], "does not match"),
        ([*signed[:-1], signed[-1].replace(b"ed25519", b"rsa")], "algorithm"),
        ([*signed[:-1], signed[-1].replace(b'"signature":"', b'"signature":"!')], "not readable"),
    ):
        with pytest.raises(SignatureWrong, match=says):
            check(lines, KEY)
    with pytest.raises(FileDamaged, match="behind the end"):
        check([*signed, signed[-1]])


def test_keys_are_pem_files_of_ed25519(tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"

    def write(key: Ed25519PrivateKey, encryption: KeySerializationEncryption) -> None:
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))

    public.write_bytes(
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    write(KEY, NoEncryption())
    assert spell_key(read_private_key(private).public_key()) == spell_key(read_public_key(public))
    for read in (lambda: read_private_key(public), lambda: read_public_key(private)):
        with pytest.raises(ConfigurationError, match="Make one with: openssl"):
            read()
    write(KEY, BestAvailableEncryption(b"secret"))
    with pytest.raises(ConfigurationError, match="without one: openssl"):
        read_private_key(private)
    other = generate_private_key(SECP256R1())
    private.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigurationError, match="not a private Ed25519 key"):
        read_private_key(private)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_private_key(tmp_path / "missing")
