"""Correct histories: what a server may do, also where answers never come."""

from __future__ import annotations

from tests.prove.histories import SESSION, Story, message

SHARED = {"session_id": SESSION, "scope": "shared"}
SECRET = message(2, "secret", visibility="private", recipients=["bob"])
A, B, C = message(1, "a"), message(2, "b"), message(3, "c")


def acknowledged_and_there(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.end(A)


def an_answer_that_never_came_and_the_write_is_there(story: Story) -> None:
    story.write(1, "alice", "a", None)
    story.read(2, "alice", 0)
    story.end(A)


def an_answer_that_never_came_and_the_write_is_not_there(story: Story) -> None:
    story.write(1, "alice", "a", None)
    story.end()


def a_retry_answered_like_the_first_call(story: Story) -> None:
    story.write(1, "alice", "a", None, idempotency_key="k")
    story.write(2, "alice", "a", 1, idempotency_key="k")
    story.write(3, "alice", "a", 1, idempotency_key="k")
    story.end(A)


def writes_at_the_same_time_in_any_order(story: Story) -> None:
    story.write(1, "alice", "b", 2)
    story.write(1.2, "bob", "a", 1)
    story.end(A, message(2, "b"))


def private_messages_that_their_readers_count(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.write(2, "alice", "secret", 2, visibility="private", recipients=["bob"])
    story.read(3, "bob", 0, A, SECRET)
    story.read(3, "carol", 0, A)
    story.end(A, SECRET)


def waiters_told_in_time(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.write(3, "alice", "b", 2)
    story.wait(0, 1.4, "bob", A)
    story.stream(0, 20, "carol", (1.5, A), (3.5, B))
    story.listen(0, 20, "bob", 1.4, 3.4)
    story.end(A, B)


def a_wait_for_two_sessions(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.end(A)
    sessions = [SESSION, "other"]
    answer = {"messages": [A], "cursors": {SESSION: 1, "other": 0}}
    cursors = {SESSION: 0, "other": 0}
    asked = {"session_ids": sessions, "cursors": cursors}
    story.call(0.8, "bob", "wait_for_messages", answer, until=1.6, **asked)


def waiters_told_late_because_of_a_fault(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.fault(1, 8)
    story.wait(0, 8.5, "bob", A)
    story.stream(0, 20, "carol", (8.5, A))
    story.end(A)


def a_stream_of_everything_without_what_is_private(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.write(2, "alice", "secret", 2, visibility="private", recipients=["bob"])
    story.write(3, "alice", "c", 3)
    story.stream(0, 20, "carol", (1.5, A), (3.5, C), session_id=None)
    story.end(A, SECRET, C)


def increments_of_which_one_has_no_answer(story: Story) -> None:
    for at, version in ((1, 1), (2, None), (3, 3)):
        story.store(at, "alice", version, mode="increment", value=1, **SHARED)
    story.load(4, "bob", 3, 3, **SHARED)


def appends_and_merges_of_two_agents(story: Story) -> None:
    story.store(1, "alice", 1, mode="append", value="x", **SHARED)
    story.store(1.1, "bob", None, mode="append", value="y", **SHARED)
    story.store(1.2, "carol", 3, mode="append", value="z", **SHARED)
    story.load(4, "bob", 3, ["x", "y", "z"], **SHARED)


def an_entry_that_expires_and_begins_anew(story: Story) -> None:
    story.store(1, "alice", 1, value=1, expires_in=2)
    story.load(2, "alice", 1, 1)
    story.load(5, "alice", None)
    story.store(6, "alice", 1, value=2)
    story.load(7, "alice", 1, 2)


def an_entry_that_is_deleted(story: Story) -> None:
    story.store(1, "alice", 1, value=1)
    story.call(2, "alice", "delete_memory", {"deleted": True}, key="k")
    story.load(3, "alice", None)


def a_lease_that_goes_from_hand_to_hand(story: Story) -> None:
    story.take(1, "alice", 1)
    story.write(2, "alice", "a", 1, lease="lease", fencing_token=1)
    story.release(3, "alice", 1)
    story.take(4, "bob", 2, ttl=2)
    story.take(7, "alice", 3)
    story.write(8, "alice", "b", 2, lease="lease", fencing_token=3)
    story.end(A, B)


def a_wait_in_vain_for_a_lease_that_is_held(story: Story) -> None:
    story.take(1, "alice", 1, ttl=30)
    wait_for_lease(story)


def wait_for_lease(story: Story) -> None:
    place = {"session_id": SESSION, "name": "lease", "ttl_seconds": 5, "wait_seconds": 8}
    story.call(2, "bob", "acquire_lease", {"acquired": False}, until=10, **place)


def a_task_that_is_done_by_the_second_worker(story: Story) -> None:
    story.claim(1, "alice", 1, "c1")
    story.claim(4, "bob", 2, "c2")
    story.finish(5, "bob", 2, "f")
    story.finish(6, "bob", 2, "f")  # the same call once more


def a_cursor_that_moves_forward(story: Story) -> None:
    story.write(1, "alice", "a", 1)
    story.write(2, "alice", "b", 2)
    for at, seq, unread in ((3, 1, 1), (4, 2, 0)):
        answer = {"seq": seq, "unread": unread}
        story.call(at, "bob", "mark_read", answer, session_id=SESSION, seq=seq)
    story.end(A, B)


CORRECT = [
    acknowledged_and_there,
    an_answer_that_never_came_and_the_write_is_there,
    an_answer_that_never_came_and_the_write_is_not_there,
    a_retry_answered_like_the_first_call,
    writes_at_the_same_time_in_any_order,
    private_messages_that_their_readers_count,
    waiters_told_in_time,
    a_wait_for_two_sessions,
    waiters_told_late_because_of_a_fault,
    a_stream_of_everything_without_what_is_private,
    increments_of_which_one_has_no_answer,
    appends_and_merges_of_two_agents,
    an_entry_that_expires_and_begins_anew,
    an_entry_that_is_deleted,
    a_lease_that_goes_from_hand_to_hand,
    a_wait_in_vain_for_a_lease_that_is_held,
    a_task_that_is_done_by_the_second_worker,
    a_cursor_that_moves_forward,
]
