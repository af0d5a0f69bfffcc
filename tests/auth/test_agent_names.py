"""What an agent may be called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.auth.agent_names import check_agent_name, clean_agent_name


@pytest.mark.parametrize("name", ["a", "worker-7", "Claude Code", "агент", "x" * 128])
def test_ordinary_names_are_accepted(name: str) -> None:
    assert check_agent_name(name, "agent_id") is None


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a\x00b", "a\tb", "x" * 129, "a\ud800"])
def test_names_that_could_mislead_are_refused_by_field(name: str) -> None:
    wrong = check_agent_name(name, "agent_id")
    assert wrong is not None
    assert wrong.details["field"] == "agent_id"


@given(st.text(st.characters()))
def test_a_cleaned_name_is_always_acceptable(name: str) -> None:
    cleaned = clean_agent_name(name)
    assert cleaned is None or check_agent_name(cleaned, "agent_id") is None


@pytest.mark.parametrize(
    "name, cleaned",
    [
        ("claude-code", "claude-code"),
        ("  my\n\tclient ", "my client"),
        ("x" * 127 + " yz", "x" * 127),
        ("\x00\n ", None),
        ("", None),
    ],
)
def test_a_clients_name_is_cleaned_into_an_agents(name: str, cleaned: str | None) -> None:
    assert clean_agent_name(name) == cleaned
