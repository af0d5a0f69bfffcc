"""What an agent may be called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.auth.agent_names import (
    check_agent_name,
    check_name_form,
    clean_agent_name,
)


@pytest.mark.parametrize("name", ["a", "worker-7", "Claude Code", "агент", "x" * 128])
def test_ordinary_names_are_accepted(name: str) -> None:
    assert check_agent_name(name, "agent_id") is None


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a\x00b", "a\tb", "x" * 129, "a\ud800"])
def test_names_that_could_mislead_are_refused_by_field(name: str) -> None:
    wrong = check_agent_name(name, "agent_id")
    assert wrong is not None
    assert wrong.details["field"] == "agent_id"


MISLEADING = {
    "alice\u202eecila": "U+202E",  # right-to-left override
    "ali\u200bce": "U+200B",  # zero-width space
    "ali\u00adce": "U+00AD",  # soft hyphen
    "alice\u2028bob": "U+2028",  # line separator
    "alice\u2029bob": "U+2029",  # paragraph separator
    "alice\u0085bob": "U+0085",  # a C1 control
    "ali\ufe0fce": "U+FE0F",  # variation selector
    "ali\u3164ce": "U+3164",  # Hangul filler
    "ali\u00a0ce": "U+00A0",  # no-break space
    "\uff41lice": "U+FF41",  # full-width a
    "\ufb01nn": "U+FB01",  # ligature fi
    "ali\ue000ce": "U+E000",  # private use
    "rene\u0301": "form C",
}


@pytest.mark.parametrize("name", MISLEADING)
def test_a_new_name_has_nothing_that_is_not_seen_as_what_it_is(name: str) -> None:
    wrong = check_agent_name(name, "X-Agent-ID")
    assert wrong is not None
    assert wrong.details["field"] == "X-Agent-ID"
    assert MISLEADING[name] in wrong.message
    assert wrong.message.isascii()
    assert check_name_form(name, "X-Agent-ID") is None


@pytest.mark.parametrize(
    "name", ["Rene\u0301".replace("e\u0301", "\u00e9"), "\u4eca\u65e5", "\U0001f916", "a/b@c:1"]
)
def test_names_in_any_script_are_accepted(name: str) -> None:
    assert check_agent_name(name, "agent_id") is None


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
        ("my\u200b \uff23lient", "my Client"),
        ("\u202e\u2028\ufe0f", None),
        ("\x00\n ", None),
        ("", None),
    ],
)
def test_a_clients_name_is_cleaned_into_an_agents(name: str, cleaned: str | None) -> None:
    assert clean_agent_name(name) == cleaned
