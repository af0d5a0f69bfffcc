"""What a statement costs must not grow with what it does not ask for.

Counted in steps of SQLite's virtual machine, which do not depend on the machine's mood.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest

from shared_context_server.models import Caller, TaskOutcome, TaskState, Visibility
from shared_context_server.settings import Settings
from shared_context_server.storage.contract import Claim, Finish, MessageQuery, NewMessage, NewTask
from shared_context_server.storage.rules.pages import TIME_RANGE_SEQS
from shared_context_server.storage.sqlite import (
    agents,
    audience,
    audit,
    changes,
    credentials,
    expiry,
    fleet,
    idempotency,
    leases,
    maintenance,
    memory,
    message_pages,
    messages,
    migrate_sqlite,
    removal,
    sessions,
    tasks,
)
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection
from shared_context_server.storage.sqlite.expiry import Expiry
from shared_context_server.storage.sqlite.messages import Messages
from shared_context_server.storage.sqlite.sessions import Sessions
from shared_context_server.storage.sqlite.tasks import Tasks
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    allow,
    at,
    make_audit,
    make_caller,
    new_message,
    new_session,
    run_on,
)
from tests.storage.sqlite.conftest import Connect

SMALL, LARGE = 500, 10_000
RANGES = 3 * TIME_RANGE_SEQS
STEPS_OF_A_RANGE = 40  # for a row of time_ranges; a message costs as many
STRANGER = make_caller("stranger", "other")
LARGEST_GROWTH = 1.1  # deeper trees cost a step here and there; a scan would cost a factor of 20

Work = Callable[[sqlite3.Connection, str], object]


def public(number: int) -> NewMessage:
    return new_message(sender=(ALICE, BOB)[number % 2], created_at=at(number))


def mixed(number: int) -> NewMessage:
    visibility = tuple(Visibility)[number % 4]
    return new_message(
        sender=(ALICE, BOB)[number % 2],
        visibility=visibility,
        recipients=("carol", "dave"),
        created_at=at(number),
    )


def between_others(number: int) -> NewMessage:
    """Nothing but the first few is for the stranger."""
    visibility = Visibility.PUBLIC if number < 60 else Visibility.PRIVATE
    return new_message(
        sender=ALICE, visibility=visibility, recipients=("bob",), created_at=at(number)
    )


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A small and a large session of each kind."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("grown"), database_url=None)
    migrate_sqlite(settings)
    with closing(open_connection(database_path(settings), settings, query_only=False)) as opened:
        opened.execute("BEGIN")
        for make in (public, mixed, between_others):
            for size in (SMALL, LARGE):
                fill(opened, f"{make.__name__} {size}", size, make)
        opened.execute("COMMIT")
        yield opened


@pytest.fixture(scope="module")
def timed(grown: sqlite3.Connection) -> sqlite3.Connection:
    """Sessions whose messages fill whole rows of time_ranges."""
    grown.execute("BEGIN")
    for size in (RANGES, 4 * RANGES):
        fill(grown, f"public {size}", size, public)
    grown.execute("COMMIT")
    return grown


def fill(
    connection: sqlite3.Connection, name: str, size: int, make: Callable[[int], NewMessage]
) -> None:
    run_on(connection, Sessions.create, new_session(name), make_audit())
    for number in range(size):
        add(connection, name, make(number))


def add(connection: sqlite3.Connection, name: str, new: NewMessage) -> None:
    run_on(connection, Messages.append, new._replace(session_id=name), allow)


def count_steps(connection: sqlite3.Connection, work: Work, name: str) -> int:
    """In a transaction that is rolled back."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.execute("BEGIN")
    connection.set_progress_handler(count, 1)
    try:
        work(connection, name)
    finally:
        connection.set_progress_handler(None, 1)
        connection.execute("ROLLBACK")
    return steps


def page(caller: Caller, **query: object) -> Work:
    asked = MessageQuery(**{"limit": 50} | query)  # type: ignore[arg-type]
    return lambda connection, name: run_on(
        connection, Messages.list_visible, name, caller, asked, allow
    )


def count_senders(caller: Caller, *, after_seq: int = 0) -> Work:
    return lambda connection, name: run_on(
        connection, Messages.count_by_sender, name, caller, after_seq=after_seq, guard=allow
    )


def writing(**fields: Any) -> Work:
    return lambda connection, name: add(connection, name, new_message(**fields))


def reply(connection: sqlite3.Connection, name: str) -> None:
    parent = run_on(connection, Messages.read_log, name, after_seq=2, limit=1, guard=allow)[0]
    add(connection, name, new_message(parent_message_id=parent.id, sender=ADMIN))


def summarize(caller: Caller) -> Work:
    return lambda connection, name: sessions.summarize(
        connection, sessions.use_session(connection, name), caller
    )


def move_cursor(connection: sqlite3.Connection, name: str) -> None:
    run_on(connection, Sessions.set_cursor, name, STRANGER, 60, allow)


FLAT: dict[str, Work] = {
    "newest": page(BOB),
    "newest of a stranger": page(STRANGER),
    "newest of an admin": page(ADMIN),
    "behind a cursor": page(BOB, after_seq=40),
    "behind a cursor of a stranger": page(STRANGER, after_seq=40),
    "behind a cursor of an admin": page(ADMIN, after_seq=40),
    "before a seq": page(BOB, before_seq=300),
    "further back": page(BOB, offset=100),
    "of one visibility": page(BOB, visibility=Visibility.PUBLIC),
    "private ones": page(BOB, visibility=Visibility.PRIVATE),
    "of one sender": page(BOB, sender="alice"),
    "of one sender for a stranger": page(STRANGER, sender="alice"),
    "private ones of one sender": page(BOB, sender="alice", visibility=Visibility.PRIVATE),
    "who has written": count_senders(BOB),
    "who has written, behind a cursor": count_senders(BOB, after_seq=40),
    "who has written of late, for an admin": lambda connection, name: count_senders(
        ADMIN, after_seq=int(name.split()[-1]) - 40
    )(connection, name),
    "replies to one": page(BOB, parent_message_id=3),
    "summary": summarize(BOB),
    "summary for a stranger": summarize(STRANGER),
    "summary for an admin": summarize(ADMIN),
    "adding": writing(),
    "adding a private one": writing(visibility=Visibility.PRIVATE, recipients=("carol", "x")),
    "adding with a key": writing(idempotency_key="key"),
    "replying": reply,
    "moving the cursor": move_cursor,
    "participants": lambda connection, name: run_on(
        connection, Sessions.list_participants, name, BOB, allow, limit=100
    ),
    "removing a step": removal.remove_step,
    "removing a step of expired ones": lambda connection, name: run_on(
        connection, Expiry.remove_some, name, at(300), lambda *_: make_audit()
    ),
}


@pytest.mark.parametrize("kind", ["public", "mixed", "between_others"])
@pytest.mark.parametrize("name", FLAT)
def test_cost_does_not_grow_with_the_session(
    grown: sqlite3.Connection, name: str, kind: str
) -> None:
    small, large = (count_steps(grown, FLAT[name], f"{kind} {size}") for size in (SMALL, LARGE))
    assert small > 10
    assert large <= small * LARGEST_GROWTH


# More of it and less of it, at the same distance from both ends.
def times_of(size: int) -> dict[str, dict[str, object]]:
    return {
        "at the beginning": {"start_time": at(100), "end_time": at(200)},
        "at the end": {"start_time": at(size - 200)},
        "nearly all": {"start_time": at(100), "end_time": at(size - 100)},
        "up to a time": {"end_time": at(size - 100)},
        "of one sender": {"start_time": at(100), "end_time": at(size - 100), "sender": "alice"},
        "nothing": {"start_time": at(size * 2)},
    }


@pytest.mark.parametrize("caller", [BOB, ADMIN], ids=lambda caller: caller.agent_id)
@pytest.mark.parametrize("name", [name for name in times_of(0) if name != "of one sender"])
def test_a_range_of_times_costs_what_lies_at_its_ends(
    timed: sqlite3.Connection, name: str, caller: Caller
) -> None:
    small, large = (
        count_steps(timed, page(caller, **times_of(size)[name]), f"public {size}")
        for size in (RANGES, 4 * RANGES)
    )
    assert large <= small * LARGEST_GROWTH + STEPS_OF_A_RANGE * 3 * RANGES / TIME_RANGE_SEQS


def test_so_does_one_of_one_sender(timed: sqlite3.Connection) -> None:
    test_a_range_of_times_costs_what_lies_at_its_ends(timed, "of one sender", BOB)


@pytest.mark.parametrize(
    "query", [{"start_time": at(0)}, {"end_time": at(9)}, {"end_time": at(9), "after_seq": 9}]
)
def test_a_stranger_pays_for_a_count_only_what_a_stranger_sees(
    grown: sqlite3.Connection, query: dict[str, object]
) -> None:
    small, large = (
        count_steps(grown, page(STRANGER, **query), f"between_others {size}")
        for size in (SMALL, LARGE)
    )
    assert large <= small * LARGEST_GROWTH


@pytest.mark.parametrize("caller", [BOB, STRANGER, ADMIN], ids=lambda caller: caller.agent_id)
def test_listing_sessions_costs_what_is_listed(grown: sqlite3.Connection, caller: Caller) -> None:
    def list_six(connection: sqlite3.Connection, _: str) -> None:
        listed = run_on(
            connection,
            Sessions.list_visible,
            caller,
            status=None,
            created_by=None,
            limit=6,
            before=None,
        )
        assert len(listed.items) == 6

    assert count_steps(grown, list_six, "") < 6 * 250


# Tasks

_ADD_TASKS = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
    INSERT INTO tasks (
        session_id, id, version, state, priority, assignee, waiting_for, created_by, created_at,
        instance, fencing_token, expires_at, depends_on, title, metadata, body, result)
    SELECT :session_id, n, 1,
        CASE WHEN n <= :count - 400 THEN 'done' WHEN n <= :count - 200 THEN 'claimed'
            WHEN n <= :count - 100 THEN 'blocked' ELSE 'ready' END,
        n % 3, CASE n % 2 WHEN 0 THEN 'bob' ELSE '' END, 1, 'alice', n, '', 1, 9e15 + n, '[]', 't',
        '{}', '', 'null'
    FROM numbers"""


@pytest.fixture(scope="module")
def worked(grown: sqlite3.Connection) -> sqlite3.Connection:
    """Sessions in which 100 tasks are done, or nearly 10,000; 200 are claimed and 100 are ready."""
    grown.execute("BEGIN")
    for size in (SMALL, LARGE):
        run_on(grown, Sessions.create, new_session(f"tasks {size}"), make_audit())
        grown.execute(_ADD_TASKS, {"session_id": f"tasks {size}", "count": size})
    grown.execute("COMMIT")
    return grown


def add_task(connection: sqlite3.Connection, name: str) -> None:
    new = NewTask(name, ALICE, "t", "", 0, None, (99, 100), {}, at(0))
    run_on(connection, Tasks.add, new, allow)


def claim_and_finish(connection: sqlite3.Connection, name: str) -> None:
    claim = Claim(name, None, BOB, timedelta(seconds=60), at(0))
    task = run_on(connection, Tasks.claim, claim, allow).task
    finish = Finish(name, task.id, BOB, task.fencing_token, TaskOutcome.DONE, None, at(1))
    run_on(connection, Tasks.finish, finish, allow)


def list_of(state: TaskState | None, assignee: str | None) -> Work:
    return lambda connection, name: run_on(
        connection,
        Tasks.list_tasks,
        name,
        state=state,
        assignee=assignee,
        after_id=0,
        limit=20,
        now=at(0),
        guard=allow,
    )


@pytest.mark.parametrize(
    "work",
    [
        add_task,
        claim_and_finish,
        list_of(None, None),
        *[list_of(state, assignee) for state in TaskState for assignee in (None, "bob")],
    ],
)
def test_tasks_cost_the_same_however_many_are_done(worked: sqlite3.Connection, work: Work) -> None:
    small, large = (count_steps(worked, work, f"tasks {size}") for size in (SMALL, LARGE))
    assert large <= small * LARGEST_GROWTH + 20


# Plans

MODULES = (
    agents,
    audience,
    audit,
    changes,
    idempotency,
    credentials,
    expiry,
    fleet,
    leases,
    maintenance,
    memory,
    message_pages,
    messages,
    removal,
    sessions,
    tasks,
)
PARTS = {
    "_FIRST_OF",
    "_VISIBLE_SEQS_BY_KEY",
    "_LATEST_AS",
    "_LIST_FROM",
}  # statements begin with them
# All rows are asked for, or there are only ever a few.
MAY_SCAN = {"credentials._LIST_KEYS", "credentials._LIST_ACTIVE_KEYS"}
MAY_SCAN |= {"agents._IS_TYPE_KNOWN"}  # asked only of types that no new agent may have
MAY_SCAN |= {"changes._IS_REMOVED"}  # few are kept, and it is asked only where a message is gone
MAY_SCAN |= {"credentials._MEASURE_KEYS"}  # what admins ask; those that are valid
MAY_SCAN |= {"fleet._COUNT_INSTANCES", "fleet._NEWEST"}  # up to a number
MAY_SCAN |= {"maintenance._CHANGE_A_ROW", "maintenance._READ_A_ROW"}  # tables of one row
MAY_SCAN |= {"audit._LIST_OLDEST"}  # the first rows of the table, a limited number
MAY_SORT = MAY_SCAN | {
    "agents._LIST_VISIBLE_IN_SESSION",
    "agents._LIST_OF_SESSION",
    "agents._LIST_INSTANCES",  # of the agents of a page, a limited number of each
    "fleet._COUNT_UNREAD",  # of the agents of a page
    "leases._LIST",
    "leases._LIST_OF_HOLDERS",  # what the agents of a page hold
    "leases._LIST_ON_PATHS",  # a limited number
    "messages._LIST_ACKS",  # of one message, at most one an agent
    "messages._COUNT_ALL_BY_SENDER",
    "messages._COUNT_VISIBLE_BY_SENDER",
    "sessions._LIST_WRITERS",
    "sessions._LIST_VISIBLE_WRITERS",
    "tasks._FIND_READY",  # of two rows
    "tasks._LIST_DEPENDENCIES",  # of one task
}
# The ids of one page in each of several states.
MAY_SORT |= {
    f"tasks._LISTS[{key}]"
    for key in ((None, True), (TaskState.READY, False), (TaskState.READY, True))
}
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b")
_HARMLESS_SCANS = re.compile(
    r"SCAN (CONSTANT ROW|page|held|before|numbered|named|wanted|asked|stored|json_each|auth_generation|sqlite_sequence|\(subquery)"
)


def find_statements(module: ModuleType) -> Iterator[tuple[str, str]]:
    short_name = module.__name__.rpartition(".")[2]
    found: dict[str, Any]
    for name, value in vars(module).items():
        if isinstance(value, str):
            found = {"": value}
        elif isinstance(value, dict) and not name.startswith("__"):
            found = {f"[{key}]": text for key, text in value.items()}
        elif isinstance(value, tuple):  # of removals
            found = {
                f"[{index}].{part}": getattr(removal, part, None)
                for index, removal in enumerate(value)
                for part in ("select", "delete")
            }
        else:
            continue
        for key, text in found.items():
            if isinstance(text, str) and _STATEMENT.match(text) and name not in PARTS:
                yield f"{short_name}.{name}{key}", text


STATEMENTS = dict(pair for module in MODULES for pair in find_statements(module))


def explain(connection: sqlite3.Connection, statement: str) -> list[str]:
    named = dict.fromkeys(re.findall(r":(\w+)", statement), 1)
    parameters = named or [1] * statement.count("?")
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return [row[3] for row in plan]


def expect_good_plans(connection: sqlite3.Connection) -> None:
    for name, statement in STATEMENTS.items():
        for line in explain(connection, statement):
            if line.startswith("SCAN") and not _HARMLESS_SCANS.match(line):
                assert name in MAY_SCAN, f"{name}: {line}"
            if "TEMP B-TREE" in line:
                assert name in MAY_SORT, f"{name}: {line}"


def test_no_statement_scans_or_sorts_a_table(open_writer: Connect) -> None:
    assert len(STATEMENTS) > 50
    with closing(open_writer()) as connection:
        expect_good_plans(connection)


def test_statistics_do_not_make_a_plan_worse(grown: sqlite3.Connection) -> None:
    """What PRAGMA optimize gathers from one shape of data."""
    grown.execute("BEGIN")
    grown.execute("ANALYZE")
    expect_good_plans(grown)
    grown.execute("ROLLBACK")
