"""Every sequence of calls against a plain Python model: logs, cursors, memory, leases and tasks together.

The model of memory's modes is the prover's. STATEFUL_EXAMPLES=2000 tries more sequences than a test
run has time for; `make prove LONG=1` does.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from prove.checks.memory import MISSING, apply
from shared_context_server.errors import (
    Conflict,
    InvalidArgument,
    LeaseLost,
    MemoryNotFound,
)
from shared_context_server.models import (
    Caller,
    MemoryMode,
    TaskOutcome,
    TaskState,
    Visibility,
)
from shared_context_server.services.memory import MemoryChange, make_update
from shared_context_server.storage.contract import (
    Claim,
    Fence,
    Finish,
    MessageQuery,
    NewTask,
)
from tests.storage.builders import (
    ALICE,
    BOB,
    CAROL,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    make_audit,
)
from tests.storage.conftest import BlockingStore

T = TypeVar("T")

EXAMPLES = int(os.environ.get("STATEFUL_EXAMPLES", "30"))
STEPS = 50
# A failing sequence is made shorter only where there is time for it: that takes minutes.
PHASES = tuple(Phase) if "STATEFUL_EXAMPLES" in os.environ else (Phase.reuse, Phase.generate)
KEPT = timedelta(days=1)
KEY = "k"  # one entry of each owner, so that calls meet

callers = st.sampled_from([ALICE, BOB, CAROL])
names = st.sampled_from(["lease", "lease", "other"])
idempotency_keys = st.none() | st.sampled_from(["i1", "i2"])
tokens = st.integers(1, 3)
ttls = st.integers(1, 4).map(lambda seconds: timedelta(seconds=seconds))
expiries = st.none() | st.integers(1, 2)
task_ids = st.none() | st.integers(1, 5)

VALUES = {
    MemoryMode.REPLACE: st.integers(0, 3),
    MemoryMode.CREATE: st.integers(0, 3),
    MemoryMode.MERGE: st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 3)),
    MemoryMode.APPEND: st.integers(0, 3),
    MemoryMode.INCREMENT: st.integers(-2, 2),
}
changes = st.sampled_from(list(MemoryMode)).flatmap(
    lambda mode: st.tuples(st.just(mode), VALUES[mode])
)


@dataclass
class Entry:
    value: Any
    version: int
    expires_at: datetime | None


@dataclass
class Holding:
    """A lease, or the claim of a task: `holder` None once it was ended."""

    holder: str | None = None
    token: int = 0
    expires_at: datetime = NOON

    def is_held(self, now: datetime) -> bool:
        return self.holder is not None and self.expires_at > now

    def take(self, caller: Caller, now: datetime, ttl: timedelta) -> bool:
        """Take or renew it; False if another agent holds it."""
        if self.is_held(now) and self.holder != caller.agent_id:
            return False
        if not self.is_held(now):
            self.token += 1
        self.holder, self.expires_at = caller.agent_id, now + ttl
        return True

    def is_valid(self, caller: Caller, token: int, now: datetime) -> bool:
        return self.is_held(now) and (self.holder, self.token) == (caller.agent_id, token)


@dataclass(eq=False)
class Board:
    """A task of the model; `state` is as stored, so a claim that has run out is still CLAIMED."""

    depends_on: tuple[int, ...]
    priority: int
    state: TaskState
    claim: Holding = field(default_factory=Holding)

    def state_at(self, now: datetime) -> TaskState:
        if self.state is TaskState.CLAIMED and not self.claim.is_held(now):
            return TaskState.READY
        return self.state


class Machine(RuleBasedStateMachine):
    """One session of a store, and what it should contain."""

    def __init__(self, blocking: BlockingStore) -> None:
        super().__init__()
        self._blocking = blocking
        self._store = blocking.store
        self.session_id = ""
        self.now = NOON
        self.log: list[tuple[str, frozenset[str] | None]] = []  # sender, readers (None: all)
        self.cursors: dict[str, int] = {}
        self.sent: dict[tuple[str, str], tuple[int, bool]] = {}
        self.memory: dict[str | None, Entry] = {}
        self.leases: dict[str, Holding] = {}
        self.tasks: list[Board] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._blocking.run(work)

    @initialize()
    def begin(self) -> None:
        self.session_id = self._blocking.next_name()
        self.run(add_session(self._store, self.session_id))

    @rule(seconds=st.integers(1, 3))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def purge(self) -> None:
        """Remove in the background what has expired; nobody can tell."""
        purging = self._store.maintenance.purge(
            expired_before=self.now, idempotency_before=NOON - KEPT, audit_before=NOON - KEPT
        )
        self.run(purging)

    # Logs and cursors

    def _visible(self, caller: Caller) -> list[int]:
        return [
            seq
            for seq, (_, readers) in enumerate(self.log, 1)
            if readers is None or caller.agent_id in readers
        ]

    @rule(
        caller=callers,
        recipient=st.none() | callers,
        key=idempotency_keys,
        fence=st.none() | st.tuples(names, tokens),
    )
    def write(
        self,
        caller: Caller,
        recipient: Caller | None,
        key: str | None,
        fence: tuple[str, int] | None,
    ) -> None:
        is_private = recipient is not None
        writing = add_message(
            self._store,
            self.session_id,
            sender=caller,
            visibility=Visibility.PRIVATE if is_private else Visibility.PUBLIC,
            recipients=(recipient.agent_id,) if recipient else (),
            created_at=self.now,
            idempotency_key=key,
            fingerprint=str(is_private),
            fence=None if fence is None else Fence(*fence),
        )
        first = None if key is None else self.sent.get((caller.agent_id, key))
        if first is not None:
            if first[1] != is_private:
                with pytest.raises(Conflict):
                    self.run(writing)
                return
            added = self.run(writing)
            assert (added.seq, added.duplicate) == (first[0], True)
            return
        if fence is not None and not self._holds(caller, *fence):
            with pytest.raises(LeaseLost):
                self.run(writing)
            return
        added = self.run(writing)
        readers = frozenset({caller.agent_id, recipient.agent_id}) if recipient else None
        self.log.append((caller.agent_id, readers))
        assert (added.seq, added.duplicate) == (len(self.log), False)
        if key is not None:
            self.sent[caller.agent_id, key] = (added.seq, is_private)

    @rule(caller=callers, after_seq=st.integers(0, 12), limit=st.integers(1, 5))
    def read(self, caller: Caller, after_seq: int, limit: int) -> None:
        query = MessageQuery(limit=limit, after_seq=after_seq)
        listing = self._store.messages.list_visible(self.session_id, caller, query, allow)
        page = self.run(listing)
        visible = self._visible(caller)
        rest = [seq for seq in visible if seq > after_seq]
        assert [message.seq for message in page.messages] == rest[:limit]
        assert (page.total_count, page.has_more) == (len(visible), len(rest) > limit)

    @rule(caller=callers, seq=st.integers(0, 12))
    def mark(self, caller: Caller, seq: int) -> None:
        marking = self._store.sessions.set_cursor(self.session_id, caller, seq, allow)
        visible = self._visible(caller)
        if seq > max(visible, default=0):
            with pytest.raises(InvalidArgument):
                self.run(marking)
            return
        stored = self.cursors[caller.agent_id] = max(seq, self.cursors.get(caller.agent_id, 0))
        unread = [
            one for one in visible if one > stored and self.log[one - 1][0] != caller.agent_id
        ]
        assert self.run(marking) == (stored, len(unread))

    # Memory

    def _entry(self, owner: str | None) -> Entry | None:
        entry = self.memory.get(owner)
        has_ended = entry is not None and entry.expires_at is not None
        return None if has_ended and entry.expires_at <= self.now else entry

    @rule(
        caller=callers,
        is_shared=st.booleans(),
        change=changes,
        expires_in=expiries,
        expected=st.none() | st.none() | st.integers(0, 3),
    )
    def remember(
        self,
        caller: Caller,
        is_shared: bool,
        change: tuple[MemoryMode, Any],
        expires_in: int | None,
        expected: int | None,
    ) -> None:
        mode, value = change
        owner = None if is_shared else caller.agent_id
        before = self._entry(owner)
        writing = self._store.memory.write(
            address(KEY, session_id=self.session_id, owner=owner),
            caller,
            make_update(MemoryChange(mode, value, True, None, expires_in, expected), self.now),
            now=self.now,
            guard=allow,
        )
        version = before.version if before else 0
        old = before.value if before else MISSING
        if (expected is not None and expected != version) or not _fits(mode, old):
            with pytest.raises(Conflict):
                self.run(writing)
            return
        kept = before.expires_at if before and mode is not MemoryMode.REPLACE else None
        new = Entry(
            apply(old, {"mode": mode.value, "value": value}),
            version + 1,
            kept if expires_in is None else self.now + timedelta(seconds=expires_in),
        )
        self.memory[owner] = new
        entry = self.run(writing).entry
        assert (entry.value, entry.version, entry.expires_at) == (
            new.value,
            new.version,
            new.expires_at,
        )

    @invariant()
    def recall(self) -> None:
        """Shared memory is at every moment what the model says."""
        if self.session_id:
            self._recall(None)

    @rule(caller=callers)
    def recall_own(self, caller: Caller) -> None:
        self._recall(caller.agent_id)

    def _recall(self, owner: str | None) -> None:
        place = address(KEY, session_id=self.session_id, owner=owner)
        getting = self._store.memory.get(place, now=self.now, guard=allow)
        expected = self._entry(owner)
        if expected is None:
            with pytest.raises(MemoryNotFound):
                self.run(getting)
        else:
            entry = self.run(getting)
            assert (entry.value, entry.version) == (expected.value, expected.version)

    @rule(caller=callers, is_shared=st.booleans())
    def forget(self, caller: Caller, is_shared: bool) -> None:
        owner = None if is_shared else caller.agent_id
        deleting = self._store.memory.delete(
            address(KEY, session_id=self.session_id, owner=owner),
            lambda entry: None,
            now=self.now,
            guard=allow,
            audit=make_audit(),
        )
        if self._entry(owner) is None:
            with pytest.raises(MemoryNotFound):
                self.run(deleting)
        else:
            self.run(deleting)
            del self.memory[owner]

    # Leases

    def _holds(self, caller: Caller, name: str, token: int) -> bool:
        return self.leases.setdefault(name, Holding()).is_valid(caller, token, self.now)

    @rule(caller=callers, name=names, ttl=ttls)
    def acquire(self, caller: Caller, name: str, ttl: timedelta) -> None:
        taking = self._store.leases.acquire(
            self.session_id, name, caller, ttl=ttl, now=self.now, guard=allow
        )
        lease = self.leases.setdefault(name, Holding())
        is_taken = lease.take(caller, self.now, ttl)
        attempt = self.run(taking)
        assert attempt.is_acquired == is_taken
        found = attempt.lease
        assert (found.holder, found.fencing_token, found.expires_at) == (
            lease.holder,
            lease.token,
            lease.expires_at,
        )

    @rule(caller=callers, name=names, token=tokens)
    def release(self, caller: Caller, name: str, token: int) -> None:
        releasing = self._store.leases.release(
            self.session_id, name, caller, token, now=self.now, guard=allow
        )
        is_held = self._holds(caller, name, token)
        assert self.run(releasing) is is_held
        if is_held:
            self.leases[name].holder = None

    @rule()
    def list_leases(self) -> None:
        listing = self._store.leases.list_held(self.session_id, limit=20, now=self.now, guard=allow)
        held = {name: lease for name, lease in self.leases.items() if lease.is_held(self.now)}
        claims = {
            f"task:{number}": task.claim
            for number, task in enumerate(self.tasks, 1)
            if task.state is TaskState.CLAIMED and task.claim.is_held(self.now)
        }
        expected = [(name, one.holder, one.token) for name, one in sorted((held | claims).items())]
        found = self.run(listing)
        assert [(one.name, one.holder, one.fencing_token) for one in found] == expected

    # Tasks

    def _tell(self, caller: Caller) -> None:
        """Each change of a task adds a public message."""
        self.log.append((caller.agent_id, None))

    @rule(
        caller=callers,
        depends_on=st.sets(st.integers(1, 5), max_size=2),
        priority=st.integers(0, 1),
    )
    def add_task(self, caller: Caller, depends_on: set[int], priority: int) -> None:
        known = tuple(sorted(one for one in depends_on if one <= len(self.tasks)))
        is_open = all(self.tasks[one - 1].state is TaskState.DONE for one in known)
        state = TaskState.READY if is_open else TaskState.BLOCKED
        self.tasks.append(Board(known, priority, state))
        new = NewTask(
            self.session_id, caller, "t", "", priority, None, known, {}, created_at=self.now
        )
        added = self.run(self._store.tasks.add(new, allow))
        self._tell(caller)
        assert (added.task.id, added.task.state) == (len(self.tasks), state)

    def _choose_task(self, caller: Caller, task_id: int | None) -> Board | None:
        """The task that a claim gets, or keeps."""
        if task_id is None:
            ready = [task for task in self.tasks if task.state_at(self.now) is TaskState.READY]
            return max(ready, key=lambda task: task.priority, default=None)
        task = self.tasks[task_id - 1]
        is_own = task.state is TaskState.CLAIMED and task.claim.holder == caller.agent_id
        may_take = task.state_at(self.now) in (TaskState.READY, TaskState.FAILED)
        return task if may_take or (is_own and task.claim.is_held(self.now)) else None

    @rule(caller=callers, task_id=task_ids, ttl=ttls)
    def claim(self, caller: Caller, task_id: int | None, ttl: timedelta) -> None:
        if task_id is not None and task_id > len(self.tasks):
            task_id = None
        task = self._choose_task(caller, task_id)
        claiming = Claim(self.session_id, task_id, caller, ttl, claimed_at=self.now)
        attempt = self.run(self._store.tasks.claim(claiming, allow))
        if task is None:
            assert attempt.task is None
            return
        is_renewal = task.state is TaskState.CLAIMED and task.claim.is_held(self.now)
        task.claim.take(caller, self.now, ttl)
        task.state = TaskState.CLAIMED
        assert attempt.task is not None
        assert attempt.task.id == self.tasks.index(task) + 1
        assert (attempt.task.fencing_token, attempt.is_renewal) == (task.claim.token, is_renewal)
        if not is_renewal:
            self._tell(caller)

    @rule(
        caller=callers,
        task_id=st.integers(1, 5),
        token=tokens,
        outcome=st.sampled_from(TaskOutcome),
    )
    def finish(self, caller: Caller, task_id: int, token: int, outcome: TaskOutcome) -> None:
        if task_id > len(self.tasks):
            return
        task = self.tasks[task_id - 1]
        finish = Finish(self.session_id, task_id, caller, token, outcome, None, self.now)
        finishing = self._store.tasks.finish(finish, allow)
        is_claimed = task.state is TaskState.CLAIMED
        if not is_claimed or not task.claim.is_valid(caller, token, self.now):
            with pytest.raises(LeaseLost):
                self.run(finishing)
            return
        self.run(finishing)
        self._tell(caller)
        task.claim.holder = None
        task.state = {
            TaskOutcome.DONE: TaskState.DONE,
            TaskOutcome.FAILED: TaskState.FAILED,
            TaskOutcome.RELEASED: TaskState.READY,
        }[outcome]
        for other in self.tasks:
            states = {self.tasks[one - 1].state for one in other.depends_on}
            if other.state is TaskState.BLOCKED and states == {TaskState.DONE}:
                other.state = TaskState.READY

    @rule()
    def list_tasks(self) -> None:
        listing = self._store.tasks.list_tasks(
            self.session_id,
            state=None,
            assignee=None,
            after_id=0,
            limit=100,
            now=self.now,
            guard=allow,
        )
        page = self.run(listing)
        expected = [task.state_at(self.now) for task in self.tasks]
        assert [task.state for task in page.tasks] == expected
        assert page.counts.ready == expected.count(TaskState.READY)
        assert page.counts.claimed == expected.count(TaskState.CLAIMED)


def _fits(mode: MemoryMode, old: Any) -> bool:
    """Whether the mode can change the stored value."""
    if old is MISSING or mode in (MemoryMode.REPLACE, MemoryMode.MERGE):
        return True
    if mode is MemoryMode.CREATE:
        return False
    return isinstance(old, list if mode is MemoryMode.APPEND else int)


@pytest.mark.no_cover
def test_any_sequence_of_calls_answers_as_the_model_does(blocking: BlockingStore) -> None:
    run_state_machine_as_test(
        lambda: Machine(blocking),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, phases=PHASES
        ),
    )
