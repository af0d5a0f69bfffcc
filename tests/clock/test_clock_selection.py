import pytest

from shared_context_server.clock.timesync.clock_selection import ClockSelection
from shared_context_server.clock.timesync.intersection import Sample

MS = 1_000_000
S = 1_000_000_000
SILENT_AFTER_NS = 100 * S


@pytest.fixture
def selection() -> ClockSelection:
    return ClockSelection(["a", "b", "c"], SILENT_AFTER_NS)


def say(server: str, base_ns: int, at_ns: int = 0, distance_ns: int = MS) -> Sample:
    return Sample(server, base_ns, distance_ns, at_ns)


def test_the_first_of_three_is_not_believed_before_the_others_had_their_chance(selection):
    selection.add_answer(say("a", 10 * S))
    assert selection.select(0) is None
    selection.add_failure("b")
    assert selection.select(0) is None
    selection.add_failure("c")
    assert selection.select(0) is not None


def test_two_of_three_that_agree_are_believed_at_once(selection):
    selection.add_answer(say("a", 0))
    selection.add_answer(say("b", 0))
    selected = selection.select(0)
    assert selected is not None
    assert selected.estimate.base_ns == 0


def test_a_liar_that_answers_first_is_outvoted_when_the_others_come(selection):
    selection.add_answer(say("a", 10 * S))
    selection.add_answer(say("b", 0))
    assert selection.select(0) is None
    selection.add_answer(say("c", 0))
    selected = selection.select(0)
    assert selected is not None
    assert selected.estimate.base_ns == 0
    assert [s.server for s in selected.agreement.outvoted] == ["a"]


def test_a_lone_liar_is_not_believed_when_the_honest_ones_fall_silent(selection):
    for server in "ab":
        selection.add_answer(say(server, 0))
    selection.add_answer(say("c", 10 * S))
    assert selection.select(0) is not None
    later_ns = SILENT_AFTER_NS + S
    selection.add_answer(say("c", 10 * S, later_ns))
    assert selection.select(later_ns) is None


def test_an_honest_one_is_still_believed_when_the_others_fall_silent(selection):
    for server in "abc":
        selection.add_answer(say(server, 0))
    assert selection.select(0) is not None
    later_ns = SILENT_AFTER_NS + S
    selection.add_answer(say("c", MS // 2, later_ns))
    selected = selection.select(later_ns)
    assert selected is not None
    assert selected.estimate.base_ns == MS // 2


def test_silent_servers_have_no_vote(selection):
    selection.add_answer(say("a", 0))
    selection.add_answer(say("b", 0))
    assert selection.select(SILENT_AFTER_NS) is not None
    assert selection.select(SILENT_AFTER_NS + 1) is None


def test_the_best_of_a_servers_last_answers_speaks_for_it():
    selection = ClockSelection(["a"], SILENT_AFTER_NS)
    selection.add_answer(say("a", 3 * MS, at_ns=0, distance_ns=2 * MS))
    selection.add_answer(say("a", 9 * MS, at_ns=S, distance_ns=30 * MS))
    selected = selection.select(S)
    assert selected is not None
    assert selected.estimate.base_ns == 3 * MS
    assert selected.synced_at_ns == S


def test_a_server_that_contradicts_itself_is_taken_at_its_last_word():
    selection = ClockSelection(["a"], SILENT_AFTER_NS)
    selection.add_answer(say("a", 0, at_ns=0, distance_ns=MS))
    selection.add_answer(say("a", 5 * S, at_ns=S, distance_ns=30 * MS))
    selected = selection.select(S)
    assert selected is not None
    assert selected.estimate.base_ns == 5 * S


def test_nothing_said_before_it_forgot_counts(selection):
    for server in "abc":
        selection.add_answer(say(server, 0))
    selection.reset()
    assert selection.select(0) is None
    selection.add_answer(say("a", 10 * S))
    assert selection.select(0) is not None


def test_the_last_sync_is_the_last_answer_of_a_server_that_is_believed(selection):
    selection.add_answer(say("a", 0, at_ns=S))
    selection.add_answer(say("b", 0, at_ns=2 * S))
    selection.add_answer(say("c", 60 * S, at_ns=3 * S))
    selected = selection.select(4 * S)
    assert selected is not None
    assert selected.synced_at_ns == 2 * S
