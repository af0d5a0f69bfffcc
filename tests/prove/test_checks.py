"""The checker finds each error by its name, and accepts what a correct server may do."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from prove.checks.logs import count_early_timestamps
from prove.history import History
from prove.promises import MEANING, Promise
from tests.prove.correct_histories import (
    CORRECT,
    SECRET,
    SHARED,
    A,
    B,
    C,
    a_wait_for_two_sessions,
    a_wait_in_vain_for_a_lease_that_is_held,
    private_messages_that_their_readers_count,
    wait_for_lease,
    waiters_told_in_time,
)
from tests.prove.histories import SESSION, Story, message

PROVE = Path(__file__).parents[2] / "prove"


@pytest.mark.parametrize("tell", CORRECT, ids=lambda tell: tell.__name__)
def test_a_correct_history_is_accepted(tell: Callable[[Story], None]) -> None:
    story = Story()
    tell(story)
    assert story.find() == set()


# Wrong ones: what is told, and the error that has to be found


def lost(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.end()


def lost_after_a_reader_saw_it(story: Story) -> None:
    story.write(1, "alice", "a", None)
    story.read(2, "bob", 0, A, total_count=0)
    story.end()


def lost_without_being_found(story: Story) -> None:
    made = {"session_id": SESSION}
    story.call(1, "alice", "create_session", made)
    story.call(2, "bob", "get_messages", code="SESSION_NOT_FOUND", session_id=SESSION)


def doubled_in_the_log(story: Story) -> None:
    story.write(1, "alice", "a", None, idempotency_key="k")
    story.write(2, "alice", "a", 2, idempotency_key="k")
    story.end(A, message(2, "a"))


def doubled_by_a_retry(story: Story) -> None:
    story.write(1, "alice", "a", 1, idempotency_key="k")
    story.write(2, "alice", "a", 2, idempotency_key="k")


def doubled_for_a_reader(story: Story) -> None:
    story.read(2, "bob", 0, A, A)


def gap_in_the_log(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.write(2, "alice", "c", 3)
    story.end(A, C)


def gap_of_a_page(story: Story) -> None:
    for at, content in enumerate("abc", 1):
        story.write(at, "alice", content, at)
    story.read(5, "bob", 0, A, C, total_count=3)
    story.end(A, B, C)


def reordered(story: Story) -> None:
    story.write(1, "alice", "b", 2)
    story.write(2, "bob", "a", 1)
    story.end(A, B)


def reordered_for_a_reader(story: Story) -> None:
    story.read(2, "bob", 0, B, A)


def own_write_not_read(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.read(2, "alice", 0, total_count=1)
    story.end(A)


def stale_read(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.read(2, "bob", 0, total_count=1)
    story.end(A)


def stale_count(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.read(2, "bob", 0, A, total_count=0)
    story.end(A)


def used_after_its_deletion(story: Story) -> None:
    story.call(1, "alice", "delete_session", {}, session_id=SESSION)
    story.read(2, "alice", 0)


def done_though_refused(story: Story) -> None:
    story.call(1, "alice", "add_message", code="LEASE_LOST", session_id=SESSION, content="a")
    story.end(A)


def cursor_went_back(story: Story) -> None:
    for at, seq in ((1, 2), (2, 1)):
        answer = {"seq": seq, "unread": 0}
        story.call(at, "bob", "mark_read", answer, session_id=SESSION, seq=seq)


def version_reused(story: Story) -> None:
    story.store(1, "alice", 1, value=1, **SHARED)
    story.store(2, "bob", 1, value=2, **SHARED)


def version_skipped(story: Story) -> None:
    story.store(1, "alice", 1, value=1, **SHARED)
    story.load(2, "bob", 3, 1, **SHARED)


def version_not_the_expected_one(story: Story) -> None:
    story.store(1, "alice", 3, value=1, expected_version=1, **SHARED)


def version_after_an_expiry(story: Story) -> None:
    story.store(1, "alice", 1, value=1, expires_in=2)
    story.store(6, "alice", 2, value=2)


def update_lost_of_an_increment(story: Story) -> None:
    for at, version in ((1, 1), (2, None), (3, 3)):
        story.store(at, "alice", version, mode="increment", value=1, **SHARED)
    story.load(4, "bob", 3, 2, **SHARED)


def update_lost_of_a_merge(story: Story) -> None:
    story.store(1, "alice", 1, mode="merge", value={"a": 1}, **SHARED)
    story.store(2, "bob", 2, mode="merge", value={"b": 1}, **SHARED)
    story.load(3, "carol", 2, {"b": 1}, **SHARED)


def memory_lost(story: Story) -> None:
    story.store(1, "alice", 1, value=1, **SHARED)
    story.load(2, "bob", None, **SHARED)


def own_memory_not_read(story: Story) -> None:
    story.store(1, "alice", 1, value=1, **SHARED)
    story.store(2, "alice", 2, value=2, **SHARED)
    story.load(3, "alice", 1, 1, **SHARED)


def read_after_its_deletion(story: Story) -> None:
    story.store(1, "alice", 1, value=1)
    story.call(2, "alice", "delete_memory", {"deleted": True}, key="k")
    story.load(3, "alice", 1, 1)


def gone_before_its_time(story: Story) -> None:
    story.store(1, "alice", 1, value=1, expires_in=9)
    story.load(3, "alice", None)


def expired_entry_served(story: Story) -> None:
    story.store(1, "alice", 1, value=1, expires_in=2)
    story.load(5, "alice", 1, 1)


def two_holders(story: Story) -> None:
    story.take(1, "alice", 1)
    story.take(3, "bob", 2)


def token_given_twice(story: Story) -> None:
    story.take(1, "alice", 1, ttl=1)
    story.take(5, "bob", 1)


def token_that_does_not_grow(story: Story) -> None:
    story.take(1, "alice", 2, ttl=1)
    story.take(5, "bob", 1)


def stale_token_after_a_newer_one(story: Story) -> None:
    story.take(1, "alice", 1, ttl=1)
    story.take(3, "bob", 2, ttl=1)
    story.write(6, "alice", "a", 1, lease="lease", fencing_token=1)


def stale_token_after_the_release(story: Story) -> None:
    story.take(1, "alice", 1)
    story.release(2, "alice", 1)
    story.store(3, "alice", 1, value=1, lease="lease", fencing_token=1, **SHARED)


def stale_token_after_its_time(story: Story) -> None:
    story.take(1, "alice", 1, ttl=2)
    story.write(5, "alice", "a", 1, lease="lease", fencing_token=1)


def private_seen(story: Story) -> None:
    story.read(2, "carol", 0, SECRET)


def private_counted(story: Story) -> None:
    private_messages_that_their_readers_count(story)
    story.read(3, "carol", 0, A, total_count=2)


def private_counted_as_unread(story: Story) -> None:
    private_messages_that_their_readers_count(story)
    answer = {"seq": 1, "unread": 1}
    story.call(4, "carol", "mark_read", answer, session_id=SESSION, seq=1)


def waiter_woken_late(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.wait(0, 5, "bob", A)
    story.end(A)


def waiter_not_woken(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.wait(0, 9, "bob")
    story.end(A)


def silent_stream(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.stream(0, 20, "carol")
    story.end(A)


def silent_subscription(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.write(5, "alice", "b", 2)
    story.listen(0, 20, "bob", 1.4)
    story.end(A, B)


def wait_in_vain_for_a_lease_that_was_released(story: Story) -> None:
    a_wait_in_vain_for_a_lease_that_is_held(story)
    story.release(3, "alice", 1)


def wait_in_vain_for_a_lease_that_has_expired(story: Story) -> None:
    story.take(1, "alice", 1, ttl=2)
    wait_for_lease(story)


def stream_with_a_gap(story: Story) -> None:
    waiters_told_in_time(story)
    story.history.calls = [call for call in story.history.calls if call.answer != A]


def wait_with_a_gap(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.write(2, "alice", "b", 2)
    story.wait(2.6, 3, "bob", B)
    story.end(A, B)


def wait_for_two_sessions_with_a_gap(story: Story) -> None:
    a_wait_for_two_sessions(story)
    story.history.calls[-1].answer["messages"] = []


def stream_of_everything_with_a_gap(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.write(2, "alice", "b", 2)
    story.stream(0, 20, "carol", (2.5, B), session_id=None)
    story.end(A, B)


def task_done_twice(story: Story) -> None:
    story.finish(1, "alice", 1, "f1")
    story.finish(2, "bob", 2, "f2")


def task_done_twice_in_the_log(story: Story) -> None:
    done = {"metadata": {"type": "task", "task_id": 1, "state": "done"}}
    story.end(message(1, "Task 1 done", **done), message(2, "Task 1 done", **done))


def unexplained(story: Story) -> None:
    story.call(1, "alice", "add_message", code="INTERNAL_ERROR", session_id="s", content="x")


WRONG: list[tuple[Promise, list[Callable[[Story], None]]]] = [
    (Promise.LOST, [lost, lost_after_a_reader_saw_it, lost_without_being_found]),
    (Promise.LOST, [memory_lost, gone_before_its_time]),
    (Promise.DOUBLED, [doubled_in_the_log, doubled_by_a_retry, doubled_for_a_reader]),
    (Promise.GAP, [gap_in_the_log, gap_of_a_page]),
    (Promise.REORDERED, [reordered, reordered_for_a_reader]),
    (
        Promise.OWN_WRITE_NOT_READ,
        [
            own_write_not_read,
            used_after_its_deletion,
            own_memory_not_read,
            read_after_its_deletion,
        ],
    ),
    (Promise.STALE_READ, [stale_read, stale_count]),
    (Promise.DONE_THOUGH_REFUSED, [done_though_refused]),
    (Promise.CURSOR_WENT_BACK, [cursor_went_back]),
    (
        Promise.VERSION,
        [
            version_reused,
            version_skipped,
            version_not_the_expected_one,
            version_after_an_expiry,
        ],
    ),
    (Promise.UPDATE_LOST, [update_lost_of_an_increment, update_lost_of_a_merge]),
    (Promise.EXPIRED_SERVED, [expired_entry_served]),
    (Promise.TWO_HOLDERS, [two_holders]),
    (Promise.TOKEN_REUSED, [token_given_twice, token_that_does_not_grow]),
    (
        Promise.STALE_TOKEN,
        [
            stale_token_after_a_newer_one,
            stale_token_after_the_release,
            stale_token_after_its_time,
        ],
    ),
    (Promise.PRIVATE_SEEN, [private_seen, private_counted, private_counted_as_unread]),
    (
        Promise.NOT_WOKEN,
        [
            waiter_woken_late,
            waiter_not_woken,
            silent_stream,
            silent_subscription,
            wait_in_vain_for_a_lease_that_was_released,
            wait_in_vain_for_a_lease_that_has_expired,
        ],
    ),
    (
        Promise.STREAM_GAP,
        [
            stream_with_a_gap,
            wait_with_a_gap,
            wait_for_two_sessions_with_a_gap,
            stream_of_everything_with_a_gap,
        ],
    ),
    (Promise.TASK_DONE_TWICE, [task_done_twice, task_done_twice_in_the_log]),
    (Promise.UNEXPLAINED, [unexplained]),
]


@pytest.mark.parametrize(
    "promise, tell",
    [(promise, tell) for promise, stories in WRONG for tell in stories],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_wrong_history_is_found_by_its_error(
    promise: Promise, tell: Callable[[Story], None], tmp_path: Path
) -> None:
    story = Story()
    tell(story)
    assert story.find() == {promise}
    story.history.write(tmp_path / "history.jsonl")
    story.history = History.read(tmp_path / "history.jsonl")
    assert story.find() == {promise}


def test_timestamps_against_the_order_of_seq_are_counted() -> None:
    story = Story()
    times = ["12:00:02Z", "12:00:01Z", "12:00:02Z", "12:00:03Z"]
    story.end(*(message(seq, "x", timestamp=time) for seq, time in enumerate(times, 1)))
    assert count_early_timestamps(story.history) == 1


def test_every_error_has_a_meaning_and_a_wrong_history() -> None:
    assert set(MEANING) == {promise for promise, _ in WRONG} == set(Promise)


def test_the_checker_imports_nothing_of_the_server() -> None:
    files = [*PROVE.glob("checks/*.py"), PROVE / "history.py", PROVE / "promises.py"]
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else name.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    ours = {name for name in imported if name.startswith("prove")}
    allowed = ("prove.checks", "prove.history", "prove.promises")
    assert all(name.startswith(allowed) for name in ours)
    assert not any(name.startswith(("shared_context", "tests", "bench")) for name in imported)
    assert ours
