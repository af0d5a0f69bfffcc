import pytest

from shared_context_server.clock.timesync.ballot import Ballot
from shared_context_server.clock.timesync.selection import Sample

MS = 1_000_000
S = 1_000_000_000
SILENT_AFTER_NS = 100 * S


@pytest.fixture
def ballot() -> Ballot:
    return Ballot(["a", "b", "c"], SILENT_AFTER_NS)


def say(server: str, base_ns: int, at_ns: int = 0, distance_ns: int = MS) -> Sample:
    return Sample(server, base_ns, distance_ns, at_ns)


def test_the_first_of_three_is_not_believed_before_the_others_had_their_chance(ballot):
    ballot.add_answer(say("a", 10 * S))
    assert ballot.decide(0) is None
    ballot.add_failure("b")
    assert ballot.decide(0) is None
    ballot.add_failure("c")
    assert ballot.decide(0) is not None


def test_two_of_three_that_agree_are_believed_at_once(ballot):
    ballot.add_answer(say("a", 0))
    ballot.add_answer(say("b", 0))
    verdict = ballot.decide(0)
    assert verdict is not None
    assert verdict.estimate.base_ns == 0


def test_a_liar_that_answers_first_is_outvoted_when_the_others_come(ballot):
    ballot.add_answer(say("a", 10 * S))
    ballot.add_answer(say("b", 0))
    assert ballot.decide(0) is None
    ballot.add_answer(say("c", 0))
    verdict = ballot.decide(0)
    assert verdict is not None
    assert verdict.estimate.base_ns == 0
    assert [s.server for s in verdict.choice.outvoted] == ["a"]


def test_a_lone_liar_is_not_believed_when_the_honest_ones_fall_silent(ballot):
    for server in "ab":
        ballot.add_answer(say(server, 0))
    ballot.add_answer(say("c", 10 * S))
    assert ballot.decide(0) is not None
    later_ns = SILENT_AFTER_NS + S
    ballot.add_answer(say("c", 10 * S, later_ns))
    assert ballot.decide(later_ns) is None


def test_an_honest_one_is_still_believed_when_the_others_fall_silent(ballot):
    for server in "abc":
        ballot.add_answer(say(server, 0))
    assert ballot.decide(0) is not None
    later_ns = SILENT_AFTER_NS + S
    ballot.add_answer(say("c", MS // 2, later_ns))
    verdict = ballot.decide(later_ns)
    assert verdict is not None
    assert verdict.estimate.base_ns == MS // 2


def test_silent_servers_have_no_vote(ballot):
    ballot.add_answer(say("a", 0))
    ballot.add_answer(say("b", 0))
    assert ballot.decide(SILENT_AFTER_NS) is not None
    assert ballot.decide(SILENT_AFTER_NS + 1) is None


def test_the_best_of_a_servers_last_answers_speaks_for_it():
    ballot = Ballot(["a"], SILENT_AFTER_NS)
    ballot.add_answer(say("a", 3 * MS, at_ns=0, distance_ns=2 * MS))
    ballot.add_answer(say("a", 9 * MS, at_ns=S, distance_ns=30 * MS))
    verdict = ballot.decide(S)
    assert verdict is not None
    assert verdict.estimate.base_ns == 3 * MS
    assert verdict.synced_at_ns == S


def test_a_server_that_contradicts_itself_is_taken_at_its_last_word():
    ballot = Ballot(["a"], SILENT_AFTER_NS)
    ballot.add_answer(say("a", 0, at_ns=0, distance_ns=MS))
    ballot.add_answer(say("a", 5 * S, at_ns=S, distance_ns=30 * MS))
    verdict = ballot.decide(S)
    assert verdict is not None
    assert verdict.estimate.base_ns == 5 * S


def test_nothing_said_before_it_forgot_counts(ballot):
    for server in "abc":
        ballot.add_answer(say(server, 0))
    ballot.forget()
    assert ballot.decide(0) is None
    ballot.add_answer(say("a", 10 * S))
    assert ballot.decide(0) is not None


def test_the_last_sync_is_the_last_answer_of_a_server_that_is_believed(ballot):
    ballot.add_answer(say("a", 0, at_ns=S))
    ballot.add_answer(say("b", 0, at_ns=2 * S))
    ballot.add_answer(say("c", 60 * S, at_ns=3 * S))
    verdict = ballot.decide(4 * S)
    assert verdict is not None
    assert verdict.synced_at_ns == 2 * S
