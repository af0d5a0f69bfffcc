from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.clock.timesync.discipline import (
    SLEW,
    STEP_NS,
    DisciplinedClock,
    Estimate,
)

MS = 1_000_000
S = 1_000_000_000

near = st.integers(-STEP_NS + 1, STEP_NS - 1)
far = st.integers(STEP_NS, 10**18).flatmap(lambda n: st.sampled_from((n, -n)))
waits = st.lists(st.integers(0, 10 * S), min_size=1, max_size=30)


@given(near, waits, st.integers(0, S))
def test_a_near_offset_is_slewed_without_a_jump_and_the_bound_holds_throughout(
    offset_ns, elapsed, bound_ns
):
    clock = DisciplinedClock(base_ns=0)
    assert clock.steer(Estimate(offset_ns, bound_ns, 0), 0) is False
    now_ns = last_ns = 0
    for wait_ns in elapsed:
        now_ns += wait_ns
        time_ns = clock.advance(now_ns)
        passed_ns = time_ns - last_ns
        last_ns = time_ns
        assert wait_ns * (1 - SLEW) - 1 <= passed_ns <= wait_ns * (1 + SLEW) + 1
        assert passed_ns >= 0
        truth_ns = now_ns + offset_ns
        held_ns = clock.find_bound(now_ns)
        assert held_ns is not None
        assert held_ns >= abs(truth_ns - time_ns) + bound_ns
    if sum(elapsed) * SLEW >= abs(offset_ns) + len(elapsed):
        assert clock.base_ns == offset_ns


@given(far, st.integers(-(10**18), 10**18))
def test_a_far_offset_is_stepped_at_once(offset_ns, base_ns):
    clock = DisciplinedClock(base_ns)
    assert clock.steer(Estimate(base_ns + offset_ns, 5, 0), 0) is True
    assert clock.advance(0) == base_ns + offset_ns


def test_128_ms_are_slewed_in_within_half_a_minute():
    clock = DisciplinedClock(0)
    clock.steer(Estimate(STEP_NS - 1, 0, 0), 0)
    for now_s in range(27):
        clock.advance(now_s * S)
    assert clock.base_ns == STEP_NS - 1


def test_time_that_passed_before_an_estimate_came_does_not_count_as_slewing():
    clock = DisciplinedClock(0)
    clock.advance(0)
    clock.steer(Estimate(100 * MS, 0, 1000 * S), 1000 * S)
    assert clock.advance(1000 * S) == 1000 * S


def test_the_bound_widens_while_nothing_new_is_heard():
    clock = DisciplinedClock(0)
    clock.steer(Estimate(0, 2 * MS, 0), 0)
    clock.advance(3600 * S)
    bound_ns = clock.find_bound(3600 * S)
    assert bound_ns is not None
    assert 182 * MS <= bound_ns <= 183 * MS


def test_the_bound_is_unknown_before_the_first_estimate_and_after_a_shift():
    clock = DisciplinedClock(0)
    assert clock.find_bound(0) is None
    clock.steer(Estimate(0, 1, 0), 0)
    assert clock.find_bound(0) is not None
    clock.shift(60 * S)
    assert clock.find_bound(0) is None
    assert clock.advance(0) == 60 * S
