import time

from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.clock.ticks import find_next_deadline, run_ticks

moments = st.integers(0, 10**18)
periods = st.integers(1, 10**10)


@given(moments, periods, moments)
def test_the_next_deadline_is_ahead_and_on_the_grid(deadline_ns, period_ns, late_ns):
    now_ns = deadline_ns + late_ns
    following_ns = find_next_deadline(deadline_ns, period_ns, now_ns)
    assert (following_ns - deadline_ns) % period_ns == 0
    assert now_ns < following_ns <= now_ns + period_ns


@given(moments, periods, st.integers(0, 10**9))
def test_a_tick_that_was_early_is_not_repeated(deadline_ns, period_ns, early_ns):
    assert find_next_deadline(deadline_ns, period_ns, deadline_ns - early_ns) == (
        deadline_ns + period_ns
    )


def test_slow_ticks_are_left_out_and_not_made_up_for():
    """Each tick takes two and a half periods: it is followed by the next deadline on the grid."""
    period_ns = 4_000_000
    moments_ns = []

    def tick():
        moments_ns.append(time.monotonic_ns())
        while time.monotonic_ns() < moments_ns[-1] + 10_000_000:
            pass

    started_ns = time.monotonic_ns()
    run_ticks(period_ns, tick, lambda: len(moments_ns) >= 6)
    for index, moment_ns in enumerate(moments_ns):
        assert moment_ns - started_ns >= 3 * period_ns * index


def test_the_first_tick_is_at_once_and_none_comes_after_the_end():
    ticks = []
    run_ticks(3600 * 10**9, lambda: ticks.append(1), lambda: bool(ticks))
    assert ticks == [1]
