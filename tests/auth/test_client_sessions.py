"""Ids of stateless mode that carry a client's name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.auth.agent_names import clean_agent_name
from shared_context_server.auth.client_sessions import MAX_ID_CHARS, ClientSessions

SESSIONS = ClientSessions(b"a" * 32)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_an_id_gives_back_the_name_as_an_agents_id(name: str) -> None:
    made = SESSIONS.make_id(name)
    agent_id = clean_agent_name(name)
    assert (made is None) == (agent_id is None)
    if made is not None:
        assert len(made) <= MAX_ID_CHARS
        assert re.fullmatch(r"[\x21-\x7e]+", made)  # what the protocol allows
        assert SESSIONS.read_name(made) == agent_id


def test_clients_of_one_name_have_different_ids() -> None:
    assert SESSIONS.make_id("claude-code") != SESSIONS.make_id("claude-code")


def test_every_process_with_the_secret_reads_it_and_no_other() -> None:
    made = SESSIONS.make_id("cursor")
    assert made is not None
    assert ClientSessions(b"a" * 32).read_name(made) == "cursor"
    assert ClientSessions(b"b" * 32).read_name(made) is None


def test_a_changed_id_names_nobody() -> None:
    made = SESSIONS.make_id("cursor")
    assert made is not None
    for position in range(len(made)):
        other = "A" if made[position] != "A" else "B"
        changed = made[:position] + other + made[position + 1 :]
        assert SESSIONS.read_name(changed) in (None, "cursor")  # the last digit has unused bits
        assert SESSIONS.read_name(made[:position]) is None


@given(st.text(max_size=100))
def test_other_texts_name_nobody(text: str) -> None:
    assert SESSIONS.read_name(text) is None
    assert SESSIONS.read_name(f"scs-{text}") is None


@pytest.mark.parametrize("name", [None, 7, {}, "", " \n", "\ud800"])
def test_what_is_no_name_has_no_id(name: object) -> None:
    assert SESSIONS.make_id(name) is None


def test_an_id_beyond_all_bounds_is_not_decoded() -> None:
    assert SESSIONS.read_name("scs-" + "A" * 1_000_000) is None
