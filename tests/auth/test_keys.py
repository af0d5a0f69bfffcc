"""Keys and their ids."""

from __future__ import annotations

from pathlib import Path

from shared_context_server.auth.keys import (
    configured_keys,
    derive_key_id,
    generate_key,
    hash_key,
    make_key_id,
)
from tests.settings import API_KEY, JWT_SECRET_KEY, make_settings

SECRET = JWT_SECRET_KEY.encode()


def test_generated_keys_are_long_and_differ() -> None:
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("scs_") and len(key) == 47 for key in keys)


def test_a_key_is_kept_as_a_hash_that_does_not_show_it() -> None:
    key = generate_key()
    assert hash_key(key) == hash_key(key) != hash_key(generate_key())
    assert key not in hash_key(key)


def test_key_ids_have_one_form() -> None:
    for key_id in (make_key_id(), derive_key_id(API_KEY, SECRET)):
        assert key_id.startswith("key_")
        assert len(bytes.fromhex(key_id.removeprefix("key_"))) == 8


def test_a_configured_keys_id_is_the_same_everywhere_and_changes_with_the_key() -> None:
    assert derive_key_id(API_KEY, SECRET) == derive_key_id(API_KEY, SECRET)
    assert derive_key_id(API_KEY, SECRET) != derive_key_id(API_KEY + "x", SECRET)


def test_a_key_id_cannot_be_computed_from_the_key_alone() -> None:
    assert derive_key_id(API_KEY, SECRET) != derive_key_id(API_KEY, b"another-secret" * 4)


def test_keys_that_are_not_configured_grant_nothing(tmp_path: Path) -> None:
    assert configured_keys(make_settings(tmp_path, api_key=None, admin_api_key=None), SECRET) == ()
