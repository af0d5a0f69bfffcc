import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared_context_server.clock.timesync.intersection import Sample, find_agreement, find_drift

MS = 1_000_000
S = 1_000_000_000
NOW_NS = 1000 * S


def sample(server: str, base_ns: int, distance_ns: int, monotonic_ns: int = NOW_NS) -> Sample:
    return Sample(server, base_ns, distance_ns, monotonic_ns)


@st.composite
def honest_servers(draw, truth_ns: int, count: int) -> list[Sample]:
    """Servers that are off by less than they admit."""
    servers = []
    for index in range(count):
        distance_ns = draw(st.integers(0, S))
        error_ns = draw(st.integers(-distance_ns, distance_ns))
        servers.append(sample(f"honest{index}", truth_ns + error_ns, distance_ns))
    return servers


@st.composite
def votes(draw) -> tuple[int, list[Sample], list[Sample]]:
    """A truth, a majority of honest servers, and a minority of liars far from all of them."""
    truth_ns = draw(st.integers(-(10**18), 10**18))
    honest = draw(st.integers(1, 6).flatmap(lambda n: honest_servers(truth_ns, n)))
    liars = []
    for index in range(draw(st.integers(0, len(honest) - 1))):
        lie_ns = draw(st.integers(4 * S, 10**15)) * draw(st.sampled_from((-1, 1)))
        liars.append(sample(f"liar{index}", truth_ns + lie_ns, draw(st.integers(0, S))))
    return truth_ns, honest, liars


@given(votes(), st.randoms(use_true_random=False))
def test_a_minority_of_liars_is_outvoted_and_the_bound_holds_the_truth(vote, random):
    truth_ns, honest, liars = vote
    everyone = honest + liars
    random.shuffle(everyone)
    agreement = find_agreement(everyone, NOW_NS)
    assert agreement is not None
    assert {s.server for s in agreement.outvoted} == {s.server for s in liars}
    assert agreement.best in honest
    assert abs(agreement.best.base_ns - truth_ns) <= agreement.bound_ns


@given(votes())
def test_the_best_by_root_distance_is_chosen_of_those_that_agree(vote):
    _, honest, liars = vote
    agreement = find_agreement(honest + liars, NOW_NS)
    assert agreement is not None
    assert agreement.best.distance_ns == min(s.distance_ns for s in honest)
    assert agreement.bound_ns >= agreement.best.distance_at(NOW_NS)


@given(st.lists(st.tuples(st.integers(-S, S), st.integers(0, S)), min_size=1, max_size=8))
def test_whoever_answers_a_choice_is_of_a_majority_with_a_point_in_common(servers):
    everyone = [sample(str(i), base, distance) for i, (base, distance) in enumerate(servers)]
    agreement = find_agreement(everyone, NOW_NS)
    points = {s.base_ns - s.distance_at(NOW_NS) for s in everyone}
    deepest = max(
        sum(abs(s.base_ns - point) <= s.distance_at(NOW_NS) for s in everyone) for point in points
    )
    assert (agreement is not None) == (2 * deepest > len(everyone))
    if agreement is not None:
        assert len(agreement.agreeing) >= deepest
        assert len(agreement.agreeing) + len(agreement.outvoted) == len(everyone)


def test_without_a_majority_nobody_is_believed():
    assert find_agreement([], NOW_NS) is None
    assert find_agreement([sample("a", 0, MS), sample("b", S, MS)], NOW_NS) is None
    apart = [sample("a", 0, MS), sample("b", S, MS), sample("c", 2 * S, MS)]
    assert find_agreement(apart, NOW_NS) is None


def test_intervals_that_only_touch_agree():
    agreement = find_agreement([sample("a", 0, 5), sample("b", 12, 5)], NOW_NS)
    assert agreement is not None
    assert agreement.outvoted == ()


def test_a_boastful_server_among_modest_ones_widens_the_bound_to_what_they_reckon():
    """It hides within their margins and claims to be far better: its word alone is not enough."""
    servers = [sample("a", 0, 50 * MS), sample("b", MS, 50 * MS), sample("boast", 20 * MS, 1000)]
    agreement = find_agreement(servers, NOW_NS)
    assert agreement is not None
    assert agreement.best.server == "boast"
    assert agreement.bound_ns >= 20 * MS


def test_two_camps_that_share_a_member_widen_the_bound_over_both():
    servers = [
        sample("wide", 0, 10 * S),
        sample("left", -7 * S, 2 * S),
        sample("right", 7 * S, 2 * S),
    ]
    agreement = find_agreement(servers, NOW_NS)
    assert agreement is not None
    assert agreement.best.base_ns - agreement.bound_ns <= -9 * S
    assert agreement.best.base_ns + agreement.bound_ns >= 9 * S


@given(st.integers(0, S), st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_samples_distance_grows_with_its_age(distance_ns, younger_ns, older_ns):
    assume(younger_ns <= older_ns)
    one = sample("a", 0, distance_ns)
    assert one.distance_at(NOW_NS + younger_ns) <= one.distance_at(NOW_NS + older_ns)
    assert one.distance_at(NOW_NS + older_ns) >= distance_ns + older_ns * 50e-6


@pytest.mark.parametrize("elapsed_ns, at_least_ns", [(0, 0), (S, 50_000), (3600 * S, 180 * MS)])
def test_drift_is_fifty_parts_in_a_million(elapsed_ns, at_least_ns):
    assert at_least_ns <= find_drift(elapsed_ns) <= at_least_ns + 1
