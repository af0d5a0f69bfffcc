"""Read the SQLite file of the older shared-context server as a source to import from.

The rows are the same at each reading, so that an import can be interrupted and repeated. They are read
one by one and never held together, whatever the size of the file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared_context_server.cli.older_records import (
    DEFAULT_AGENT_TYPE,
    NotTaken,
    is_message_id,
    to_audit,
    to_memory,
    to_message,
    to_session,
)
from shared_context_server.errors import ConfigurationError, CopyError
from shared_context_server.services.dumps import BATCH_BYTES
from shared_context_server.services.moving import BATCH_ROWS, ProgressListener
from shared_context_server.storage.codec import Row
from shared_context_server.storage.transfer.records import (
    AGENT,
    AUDIT,
    COUNTER,
    KINDS,
    MEMORY,
    MESSAGE,
    NUMBERED_TABLES,
    SESSION,
    Key,
    RecordKind,
)

MAX_ROW_BYTES = 16 * 1024 * 1024  # far above any row of the older server
EXAMPLES = 3  # names in a remark
MAX_NAME_CHARS = 80
MAX_AGENTS = 100_000  # that are noted as known

_COLUMNS = {
    "sessions": "id purpose created_at updated_at is_active created_by metadata",
    "messages": "id session_id sender content visibility message_type metadata timestamp "
    "parent_message_id",
    "agent_memory": "id agent_id session_id key value metadata created_at updated_at expires_at",
    "audit_log": "id timestamp event_type agent_id session_id resource action result metadata",
}
_TABLES = {SESSION: "sessions", MESSAGE: "messages", MEMORY: "agent_memory", AUDIT: "audit_log"}
_SESSIONS = "SELECT * FROM sessions ORDER BY id COLLATE BINARY"
# Files of the first versions have no sender_type.
_MESSAGES = """
    SELECT m.id, m.session_id, m.sender, {sender_type} AS sender_type, m.content, m.visibility,
        m.message_type, m.metadata, m.timestamp, m.parent_message_id,
        (SELECT parent.session_id FROM messages AS parent WHERE parent.id = m.parent_message_id)
            AS parent_session_id
    FROM messages AS m ORDER BY m.id"""
# Nothing kept an agent from having several server-wide entries of one key: the newest counts.
_MEMORY = """
    SELECT id, agent_id, coalesce(session_id, '') AS session_id, key, value, metadata, created_at,
        updated_at, expires_at
    FROM agent_memory
    ORDER BY coalesce(session_id, '') COLLATE BINARY, agent_id COLLATE BINARY, key COLLATE BINARY,
        id DESC"""
_AUDIT = "SELECT * FROM audit_log ORDER BY id"
_OUR_TABLE = "schema_migrations"


@dataclass(slots=True)
class Remark:
    """Rows about which the same is to be said, with the names of the first ones."""

    count: int = 0
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Agent:
    """When an agent wrote first and last, and its latest type; "" if it wrote no message."""

    agent_type: str
    first_seen: int
    last_seen: int

    def meet(self, other: _Agent) -> None:
        if other.agent_type and (not self.agent_type or other.last_seen >= self.last_seen):
            self.agent_type = other.agent_type
        self.first_seen = min(self.first_seen, other.first_seen)
        self.last_seen = max(self.last_seen, other.last_seen)


class OlderServer:
    """A Source; made by open_older_server. Call read_all() first. `remarks` are those of the reading
    since rewind(), by kind and text; `taken` counts its rows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        has_sender_type = "sender_type" in _columns_of(connection, "messages")
        self._messages = _MESSAGES.format(
            sender_type="m.sender_type" if has_sender_type else "NULL"
        )
        self.counts: Mapping[RecordKind, int] = {
            kind: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for kind, table in _TABLES.items()
        }
        self._agents: dict[str, _Agent] = {}
        self._has_read_all = False
        self.rewind()

    def rewind(self) -> None:
        self.taken = dict.fromkeys((*_TABLES, AGENT), 0)
        self.remarks: dict[tuple[RecordKind, str], Remark] = {}
        self._ends: dict[str, int] = {}  # the last seq of each session
        self._left_out: set[int] = set()  # messages

    async def read(self, kind: RecordKind) -> AsyncIterator[Sequence[Row]]:
        with explain_damage():
            for batch in _in_batches(self._rows(kind)):
                yield batch

    async def read_all(self, progress: ProgressListener) -> None:
        """Read everything, for `taken` and `remarks`."""
        progress.begin("checking", sum(self.counts.values()))
        self.rewind()
        for kind in KINDS:
            async for rows in self.read(kind):
                progress.advance(len(rows))
        self._has_read_all = True

    def _rows(self, kind: RecordKind) -> Iterator[Row]:
        if kind is SESSION:
            return self._convert(kind, _SESSIONS, self._to_session)
        if kind is MESSAGE:
            return self._convert(kind, self._messages, self._to_message)
        if kind is MEMORY:
            return self._convert(kind, _MEMORY, self._to_memory)
        if kind is AUDIT:
            return self._convert(kind, _AUDIT, self._to_audit)
        if kind is AGENT:
            return self._known_agents()
        return self._counters() if kind is COUNTER else iter(())

    def _convert(
        self, kind: RecordKind, statement: str, convert: Callable[[sqlite3.Row, str], Row]
    ) -> Iterator[Row]:
        last: Key | None = None
        for row in self._connection.execute(statement):
            name = _name_of(kind, row)
            try:
                converted = convert(row, name)
                key = kind.key_of(converted)
                if key == last:
                    raise NotTaken("another one has the same name and is newer")
                if last is not None and key < last:
                    raise NotTaken("its name is not UTF-8")
            except NotTaken as exc:
                self._remark(kind, f"not taken: {exc}", name)
                if kind is MESSAGE:
                    self._left_out.add(row["id"])
                continue
            last = key
            self._take(kind, converted)
            yield converted

    def _take(self, kind: RecordKind, row: Row) -> None:
        self.taken[kind] += 1
        if kind is SESSION:
            self._ends[row[0]] = 0
        elif kind is MESSAGE:
            self._ends[row[kind.columns.index("session_id")]] += 1

        if not self._has_read_all:
            self._note_agent(kind, row)

    def _note_agent(self, kind: RecordKind, row: Row) -> None:
        """Remember who wrote, so that the new server knows them: it keeps the names that it knows."""
        fields = dict(zip(kind.columns, row, strict=True))
        if kind is MESSAGE:
            seen = _Agent(fields["sender_type"], fields["created_at"], fields["created_at"])
            agent_id = fields["sender"]
        elif kind is MEMORY:
            seen = _Agent("", fields["created_at"], fields["updated_at"])
            agent_id = fields["owner"]
        elif kind is SESSION:
            seen = _Agent("", fields["created_at"], fields["created_at"])
            agent_id = fields["created_by"]
        else:
            return
        known = self._agents.get(agent_id)
        if known is not None:
            known.meet(seen)
        elif len(self._agents) < MAX_AGENTS:
            self._agents[agent_id] = seen

    def _known_agents(self) -> Iterator[Row]:
        for agent_id, agent in sorted(self._agents.items()):
            self.taken[AGENT] += 1
            agent_type = agent.agent_type or DEFAULT_AGENT_TYPE
            yield agent_id, agent_type, agent.first_seen, agent.last_seen, False

    def _to_session(self, row: sqlite3.Row, name: str) -> Row:
        return to_session(row, self._noter(SESSION, name))

    def _to_message(self, row: sqlite3.Row, name: str) -> Row:
        session_id, parent = row["session_id"], row["parent_message_id"]
        self._require_session(session_id)
        if not is_message_id(row["id"]):
            raise NotTaken("the id is not a positive integer")
        has_parent = (
            is_message_id(parent)
            and parent < row["id"]
            and row["parent_session_id"] == session_id
            and parent not in self._left_out
        )
        return to_message(
            row, self._ends[session_id] + 1, self._noter(MESSAGE, name), has_parent=has_parent
        )

    def _to_memory(self, row: sqlite3.Row, name: str) -> Row:
        if row["session_id"] != "":
            self._require_session(row["session_id"])
        return to_memory(row, self._noter(MEMORY, name))

    def _to_audit(self, row: sqlite3.Row, name: str) -> Row:
        return to_audit(row, self._noter(AUDIT, name))

    def _require_session(self, session_id: object) -> None:
        if session_id not in self._ends:
            raise NotTaken("its session is not in the file, or was not taken")

    def _counters(self) -> Iterator[Row]:
        """The last ids that were given out, which the older server did not give out again either."""
        for table in NUMBERED_TABLES:
            last_ids = self._connection.execute(
                f"SELECT max(id) FROM {table} UNION ALL SELECT seq FROM sqlite_sequence WHERE name = ?",  # noqa: S608
                (table,),
            )
            yield table, max((id for (id,) in last_ids if is_message_id(id)), default=0)

    def _noter(self, kind: RecordKind, name: str) -> Callable[[str], None]:
        return lambda text: self._remark(kind, text, name)

    def _remark(self, kind: RecordKind, text: str, name: str) -> None:
        remark = self.remarks.setdefault((kind, text), Remark())
        remark.count += 1
        if len(remark.names) < EXAMPLES:
            remark.names.append(name)


@contextlib.contextmanager
def open_older_server(path: Path) -> Iterator[OlderServer]:
    """Open the file for reading, at one moment. Raises ConfigurationError if there is no such file or it
    is of another program, CopyError if it is damaged."""
    if not path.is_file():
        raise ConfigurationError(f"{path} is not a file.")
    with explain_damage(), contextlib.closing(_connect(path)) as connection:
        connection.execute("BEGIN")
        _require_schema(connection, path)
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise CopyError(f"{path} is damaged: {' '.join(str(found).split())}.")
        yield OlderServer(connection)


@contextlib.contextmanager
def explain_damage() -> Iterator[None]:
    """Report what SQLite cannot read as CopyError."""
    try:
        yield
    except sqlite3.Error as exc:
        reason = " ".join(str(exc).split())
        raise CopyError(f"The file of the older server cannot be read: {reason}.") from exc
    except UnicodeDecodeError as exc:  # of a message of SQLite that quotes a damaged schema
        raise CopyError("The file of the older server cannot be read: it is damaged.") from exc


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    # A text that is not UTF-8 is read with replacement characters instead of stopping the import.
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _require_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise ConfigurationError unless the tables are those of the older server. Views and virtual tables
    of the same names are not read, because they could do anything."""
    listed = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'")
    tables = {name: sql for name, sql in listed if sql and sql.upper().startswith("CREATE TABLE")}
    if _OUR_TABLE in tables:
        raise ConfigurationError(
            f"{path} is a database of this program: copy it with migrate --from sqlite:///…"
        )
    for table, columns in _COLUMNS.items():
        if table not in tables or set(columns.split()) - _columns_of(connection, table):
            raise ConfigurationError(
                f"{path} is not a database of the older shared-context server: it has no table "
                f"{table} as that has."
            )


def _columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}


def _name_of(kind: RecordKind, row: sqlite3.Row) -> str:
    name = f"{row['key']} of {row['agent_id']}" if kind is MEMORY else str(row["id"])
    return name[:MAX_NAME_CHARS]


def _in_batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, str))
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
