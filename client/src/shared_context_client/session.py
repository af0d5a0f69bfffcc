"""Handles for one session and for memory, so that calls need not repeat the session id."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from shared_context_client._generated.results import (
    ClosedSession,
    DeletedSession,
    DigestResult,
    LeaseList,
    MarkedRead,
    MemoryDeleted,
    MemoryList,
    MemoryMode,
    MemoryScope,
    MemorySet,
    MemoryValue,
    MessageAcknowledged,
    MessageAdded,
    MessageItem,
    MessageList,
    SearchResults,
    SessionDetails,
    SortOrder,
    TaskChanged,
    TaskClaimed,
    TaskList,
    TaskOutcome,
    TaskState,
    Visibility,
    WaitResult,
    Within,
)
from shared_context_client._generated.tools import AsyncTools
from shared_context_client.connection import Connection
from shared_context_client.follow import Follower
from shared_context_client.leases import HeldLease, hold_lease
from shared_context_client.tasks import ClaimedTask, work_on_task
from shared_context_client.wire import MISSING, Missing


class Memory:
    """Memory of one session, or server-wide."""

    def __init__(self, tools: AsyncTools, session_id: str | None) -> None:
        self._tools = tools
        self._session_id = session_id

    async def set(
        self,
        key: str,
        value: Any | Missing = MISSING,
        *,
        scope: MemoryScope | None = None,
        mode: MemoryMode | None = None,
        expected_version: int | None = None,
        expires_in: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        lease: HeldLease | None = None,
    ) -> MemorySet:
        """Store a JSON value. See set_memory."""
        return await self._tools.set_memory(
            key,
            value,
            session_id=self._session_id,
            scope=scope,
            mode=mode,
            expected_version=expected_version,
            expires_in=expires_in,
            metadata=metadata,
            idempotency_key=idempotency_key,
            lease=None if lease is None else lease.name,
            fencing_token=None if lease is None else lease.fencing_token,
        )

    async def get(self, key: str, *, scope: MemoryScope | None = None) -> MemoryValue:
        """Return the value with its version. Raises MemoryNotFound."""
        return await self._tools.get_memory(key, session_id=self._session_id, scope=scope)

    async def list(
        self,
        *,
        scope: MemoryScope | None = None,
        prefix: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> MemoryList:
        """List keys and versions, without values."""
        return await self._tools.list_memory(
            session_id=self._session_id, scope=scope, prefix=prefix, limit=limit, cursor=cursor
        )

    async def delete(
        self, key: str, *, scope: MemoryScope | None = None, expected_version: int | None = None
    ) -> MemoryDeleted:
        """Delete the value. Raises MemoryNotFound."""
        return await self._tools.delete_memory(
            key, session_id=self._session_id, scope=scope, expected_version=expected_version
        )


class Session:
    """A handle for one session. Making one sends nothing."""

    def __init__(self, tools: AsyncTools, connection: Connection, session_id: str) -> None:
        self._tools = tools
        self._connection = connection
        self.id = session_id
        self.memory = Memory(tools, session_id)

    def __repr__(self) -> str:
        return f"Session({self.id!r})"

    async def add(
        self,
        content: str,
        *,
        visibility: Visibility | None = None,
        recipients: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        parent_message_id: int | None = None,
        idempotency_key: str | None = None,
        lease: HeldLease | None = None,
        requires_ack: bool | None = None,
    ) -> MessageAdded:
        """Add a message. With a lease, only while it is held. With requires_ack, its readers are asked
        for an acknowledgement."""
        return await self._tools.add_message(
            self.id,
            content,
            visibility=visibility,
            recipients=recipients,
            metadata=metadata,
            parent_message_id=parent_message_id,
            idempotency_key=idempotency_key,
            lease=None if lease is None else lease.name,
            fencing_token=None if lease is None else lease.fencing_token,
            requires_ack=requires_ack,
        )

    async def acknowledge(self, message_id: int) -> MessageAcknowledged:
        """Acknowledge a message. Its sender is told who has and who has not. See acknowledge_message."""
        return await self._tools.acknowledge_message(self.id, message_id)

    async def messages(
        self,
        *,
        limit: int | None = None,
        after_seq: int | None = None,
        before_seq: int | None = None,
        sender: str | None = None,
    ) -> MessageList:
        """Return the newest messages, or those after after_seq. get_messages has more filters."""
        return await self._tools.get_messages(
            self.id, limit=limit, after_seq=after_seq, before_seq=before_seq, sender=sender
        )

    async def wait(
        self,
        *,
        after_seq: int | None = None,
        timeout_seconds: float | None = None,
        limit: int | None = None,
        mentions_me: bool | None = None,
        include_own: bool | None = None,
    ) -> WaitResult:
        """Wait until others have written messages after after_seq (None: the stored cursor). With
        include_own, own messages count too."""
        return await self._tools.wait_for_messages(
            self.id,
            after_seq=after_seq,
            timeout_seconds=timeout_seconds,
            limit=limit,
            mentions_me=mentions_me,
            include_own=include_own,
        )

    async def follow(
        self, after_seq: int | None = None, *, patience_s: float | None = None
    ) -> AsyncGenerator[MessageItem]:
        """Yield every message after after_seq (None: from now on, 0: from the first), once and in
        order, until the session is closed. Restarts of the server do not matter.

        Raises SessionNotFound when the session is deleted, Unauthenticated when the credential
        ends, and, with `patience_s`, ServerUnavailable when the server is away for that long.
        """
        follower = Follower(self._tools, self._connection, self.id, after_seq)
        messages = follower.follow(patience_s)
        try:
            async for message in messages:
                yield message
        finally:
            await messages.aclose()

    async def search(
        self,
        query: str,
        *,
        limit: int | None = None,
        fuzzy_threshold: float | None = None,
        sender: str | None = None,
        sort: SortOrder | None = None,
        cursor: str | None = None,
        within: Within | None = None,
    ) -> SearchResults:
        """Search fuzzily, best match first, or newest first with sort="newest". The next page
        begins at cursor=results.next_cursor. search_context has more filters, and searches all
        sessions with None for session_id."""
        return await self._tools.search_context(
            self.id,
            query,
            limit=limit,
            fuzzy_threshold=fuzzy_threshold,
            sender=sender,
            sort=sort,
            cursor=cursor,
            within=within,
        )

    async def digest(
        self, *, after_seq: int | None = None, max_tokens: int | None = None
    ) -> DigestResult:
        """Summarise what happened after after_seq (None: the stored cursor), in few tokens."""
        return await self._tools.get_digest(self.id, after_seq=after_seq, max_tokens=max_tokens)

    async def mark_read(self, seq: int) -> MarkedRead:
        """Store how far has been read. It never moves back."""
        return await self._tools.mark_read(self.id, seq)

    async def get(self) -> SessionDetails:
        """Return the session, its participants, and its newest messages."""
        return await self._tools.get_session(self.id)

    async def close(self) -> ClosedSession:
        """Make the session read-only."""
        return await self._tools.close_session(self.id)

    async def delete(self) -> DeletedSession:
        """Delete the session with all its data."""
        return await self._tools.delete_session(self.id)

    async def leases(self) -> LeaseList:
        """List the leases held in this session."""
        return await self._tools.list_leases(session_id=self.id)

    def lease(
        self,
        name: str,
        *,
        ttl_seconds: int = 60,
        wait_seconds: float = 0,
        paths: Sequence[str] | None = None,
    ) -> AbstractAsyncContextManager[HeldLease]:
        """Hold a lease: `async with session.lease("deploy") as lease:` renews it in the background
        and releases it at the end. Raises LeaseHeld if another agent still has it, or one on
        overlapping paths, after wait_seconds."""
        return hold_lease(
            self._tools,
            name,
            session_id=self.id,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
            paths=paths,
        )

    async def add_task(
        self,
        title: str,
        *,
        body: str | None = None,
        depends_on: Sequence[int] | None = None,
        priority: int | None = None,
        assignee: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> TaskChanged:
        """Put a task on the board of this session."""
        return await self._tools.add_task(
            self.id,
            title,
            body=body,
            depends_on=depends_on,
            priority=priority,
            assignee=assignee,
            metadata=metadata,
            idempotency_key=idempotency_key,
        )

    async def claim_task(
        self,
        task_id: int | None = None,
        *,
        ttl_seconds: int | None = None,
        wait_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> TaskClaimed:
        """Claim the first ready task, or this one. Claim it again to renew it."""
        return await self._tools.claim_task(
            self.id,
            task_id=task_id,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
            idempotency_key=idempotency_key,
        )

    async def finish_task(
        self,
        task_id: int,
        fencing_token: int,
        *,
        outcome: TaskOutcome | None = None,
        result: Any = None,
        idempotency_key: str | None = None,
    ) -> TaskChanged:
        """End a claim. Raises LeaseLost if the task is another worker's now."""
        return await self._tools.finish_task(
            self.id,
            task_id,
            fencing_token,
            outcome=outcome,
            result=result,
            idempotency_key=idempotency_key,
        )

    async def tasks(
        self,
        *,
        state: TaskState | None = None,
        assignee: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> TaskList:
        """List the tasks of this session by id, with the counts by state."""
        return await self._tools.list_tasks(
            self.id, state=state, assignee=assignee, limit=limit, cursor=cursor
        )

    def work(
        self, *, task_id: int | None = None, ttl_seconds: int = 60, wait_seconds: float = 0
    ) -> AbstractAsyncContextManager[ClaimedTask | None]:
        """Hold a task: `async with session.work(wait_seconds=30) as task:` renews its claim in the
        background; end it with `await task.finish(result=…)`. A task that the block does not finish
        is released. None if there is no task for us after wait_seconds."""
        return work_on_task(
            self._tools,
            self.id,
            task_id=task_id,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
        )
