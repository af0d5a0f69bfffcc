# Written by `make docs` from the server's registry of tools. Do not edit.
"""The tools as methods that make calls and send nothing."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from shared_context_client._generated import registry
from shared_context_client._generated.results import (
    Access,
    AgentList,
    AgentState,
    AuditList,
    ClosedSession,
    CreatedSession,
    DeletedSession,
    DigestResult,
    LeaseAcquired,
    LeaseList,
    LeaseReleased,
    MarkedRead,
    MemoryDeleted,
    MemoryList,
    MemoryMode,
    MemoryScope,
    MemorySet,
    MemoryValue,
    MessageAcknowledged,
    MessageAdded,
    MessageList,
    Permission,
    RevokeResult,
    SearchMode,
    SearchResults,
    SensorResult,
    SensorsResult,
    SessionDetails,
    SessionPage,
    SortOrder,
    StatusSet,
    TaskChanged,
    TaskClaimed,
    TaskList,
    TaskOutcome,
    TaskState,
    TimeResult,
    TokenResult,
    Visibility,
    WaitResult,
    Within,
)
from shared_context_client.wire import MISSING, Call, Missing, Moment, make_call


class Calls:
    """One method a tool."""

    def authenticate_agent(
        self,
        agent_id: str,
        *,
        agent_type: str | None = None,
        api_key: str | None = None,
        requested_permissions: Sequence[Permission] | None = None,
        auth_token: str | None = None,
    ) -> Call[TokenResult]:
        """Exchange an API key for a token, once, unless the connection's headers say who you are. `next` says what to send as auth_token with each later call. You get the requested permissions that the key allows.

        agent_type: Default: the type of your key, else generic.
        api_key: Default: the X-API-Key header.
        requested_permissions: Default: read, write.
        """
        return make_call(
            registry.AUTHENTICATE_AGENT,
            TokenResult,
            agent_id=agent_id,
            agent_type=agent_type,
            api_key=api_key,
            requested_permissions=requested_permissions,
            auth_token=auth_token,
        )

    def refresh_token(self, *, auth_token: str | None = None) -> Call[TokenResult]:
        """Get a new token before yours expires (expires_in, seconds). The old one stays valid until it expires or either is revoked."""
        return make_call(registry.REFRESH_TOKEN, TokenResult, auth_token=auth_token)

    def revoke_token(
        self, *, jti: str | None = None, auth_token: str | None = None
    ) -> Call[RevokeResult]:
        """Revoke the calling token, or another of yours by its jti, with all tokens of the same login and their handles.

        jti: Default: the calling token.
        """
        return make_call(registry.REVOKE_TOKEN, RevokeResult, jti=jti, auth_token=auth_token)

    def create_session(
        self,
        purpose: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        access: Access | None = None,
        participants: Sequence[str] | None = None,
        auth_token: str | None = None,
    ) -> Call[CreatedSession]:
        """Start a session, a shared log of messages, if list_sessions has none that fits. Give its session_id to the other agents.

        access: invited: you, participants, admins. Default: open.
        """
        return make_call(
            registry.CREATE_SESSION,
            CreatedSession,
            purpose=purpose,
            metadata=metadata,
            access=access,
            participants=participants,
            auth_token=auth_token,
        )

    def list_sessions(
        self,
        *,
        status: Literal["active", "closed", "all"] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        created_by: str | None = None,
        auth_token: str | None = None,
    ) -> Call[SessionPage]:
        """Find a session to work in: those you may read, newest first, with purpose, status, message_count and your unread count.

        status: Default: active.
        limit: Default: 50.
        """
        return make_call(
            registry.LIST_SESSIONS,
            SessionPage,
            status=status,
            limit=limit,
            cursor=cursor,
            created_by=created_by,
            auth_token=auth_token,
        )

    def get_session(
        self, session_id: str, *, auth_token: str | None = None
    ) -> Call[SessionDetails]:
        """Look into one session: its purpose, participants and the 50 newest messages you may see."""
        return make_call(
            registry.GET_SESSION, SessionDetails, session_id=session_id, auth_token=auth_token
        )

    def close_session(
        self, session_id: str, *, auth_token: str | None = None
    ) -> Call[ClosedSession]:
        """Make a session read-only when its work is done. Only for its creator and admins."""
        return make_call(
            registry.CLOSE_SESSION, ClosedSession, session_id=session_id, auth_token=auth_token
        )

    def delete_session(
        self, session_id: str, *, auth_token: str | None = None
    ) -> Call[DeletedSession]:
        """Delete a session with its messages and memory permanently; close_session keeps them. Only for its creator and admins."""
        return make_call(
            registry.DELETE_SESSION, DeletedSession, session_id=session_id, auth_token=auth_token
        )

    def add_message(
        self,
        session_id: str,
        content: str,
        *,
        visibility: Visibility | None = None,
        recipients: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        parent_message_id: int | None = None,
        idempotency_key: str | None = None,
        requires_ack: bool | None = None,
        lease: str | None = None,
        fencing_token: int | None = None,
        auth_token: str | None = None,
    ) -> Call[MessageAdded]:
        """Tell the others in a session a finding, decision or question; @agent-id in content mentions one. Returns message_id and seq once it is stored durably.

        visibility: private: you and recipients. agent_only: your agent_type. Default: public.
        idempotency_key: Repeat it when you retry.
        requires_ack: Recipients shall acknowledge_message. Default: False.
        lease: Refuse unless you hold it.
        """
        return make_call(
            registry.ADD_MESSAGE,
            MessageAdded,
            session_id=session_id,
            content=content,
            visibility=visibility,
            recipients=recipients,
            metadata=metadata,
            parent_message_id=parent_message_id,
            idempotency_key=idempotency_key,
            requires_ack=requires_ack,
            lease=lease,
            fencing_token=fencing_token,
            auth_token=auth_token,
        )

    def get_messages(
        self,
        session_id: str,
        *,
        limit: int | None = None,
        offset: int | None = None,
        after_seq: int | None = None,
        before_seq: int | None = None,
        sender: str | None = None,
        visibility: Visibility | None = None,
        start_time: Moment | None = None,
        end_time: Moment | None = None,
        parent_message_id: int | None = None,
        auth_token: str | None = None,
    ) -> Call[MessageList]:
        """Read messages you may see, in seq order: the newest, or those after after_seq. Continue with after_seq=next_after_seq while has_more.

        limit: Default: 50.
        offset: Newest to skip. Default: 0.
        after_seq: Oldest first after it.
        """
        return make_call(
            registry.GET_MESSAGES,
            MessageList,
            session_id=session_id,
            limit=limit,
            offset=offset,
            after_seq=after_seq,
            before_seq=before_seq,
            sender=sender,
            visibility=visibility,
            start_time=start_time,
            end_time=end_time,
            parent_message_id=parent_message_id,
            auth_token=auth_token,
        )

    def wait_for_messages(
        self,
        session_id: str | None = None,
        *,
        after_seq: int | None = None,
        session_ids: Sequence[str] | None = None,
        cursors: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
        limit: int | None = None,
        mentions_me: bool | None = None,
        include_own: bool | None = None,
        sender: str | None = None,
        visibility: Visibility | None = None,
        auth_token: str | None = None,
    ) -> Call[WaitResult]:
        """Wait until others have written messages that you may see; do not poll. Returns at once if there are any, else no later than timeout_seconds (timed_out). Then continue with after_seq=next_after_seq (or cursors), and mark_read what you have handled.

        session_id: Without session_id and session_ids: all you may read.
        after_seq: Default: your stored cursor.
        cursors: after_seq by session_id, when you wait for several.
        timeout_seconds: Default: 25.
        limit: Default: 50.
        mentions_me: Only messages to you, or with @your-agent-id. Default: False.
        include_own: Your own messages count too. Default: False.
        """
        return make_call(
            registry.WAIT_FOR_MESSAGES,
            WaitResult,
            session_id=session_id,
            after_seq=after_seq,
            session_ids=session_ids,
            cursors=cursors,
            timeout_seconds=timeout_seconds,
            limit=limit,
            mentions_me=mentions_me,
            include_own=include_own,
            sender=sender,
            visibility=visibility,
            auth_token=auth_token,
        )

    def mark_read(
        self, session_id: str, seq: int, *, auth_token: str | None = None
    ) -> Call[MarkedRead]:
        """Store the seq up to which you have handled messages; your cursor never moves back. Returns how many are unread."""
        return make_call(
            registry.MARK_READ, MarkedRead, session_id=session_id, seq=seq, auth_token=auth_token
        )

    def get_digest(
        self,
        session_id: str,
        *,
        after_seq: int | None = None,
        max_tokens: int | None = None,
        auth_token: str | None = None,
    ) -> Call[DigestResult]:
        """Catch up in few tokens on what happened since your cursor: who wrote, decisions, open questions, newest messages in full. Then mark_read next_after_seq. Messages count as such by metadata type "decision" or "question".

        after_seq: Default: your stored cursor.
        max_tokens: Default: 2000.
        """
        return make_call(
            registry.GET_DIGEST,
            DigestResult,
            session_id=session_id,
            after_seq=after_seq,
            max_tokens=max_tokens,
            auth_token=auth_token,
        )

    def search_context(
        self,
        session_id: str | None,
        query: str,
        *,
        fuzzy_threshold: float | None = None,
        limit: int | None = None,
        scope: Literal["all", "public", "private", "agent_only", "admin_only"] | None = None,
        search_metadata: bool | None = None,
        sender: str | None = None,
        start_time: Moment | None = None,
        end_time: Moment | None = None,
        sort: SortOrder | None = None,
        cursor: str | None = None,
        within: Within | None = None,
        mode: SearchMode | None = None,
        auth_token: str | None = None,
    ) -> Call[SearchResults]:
        """Find messages you may see by their words, in one session or in all, and memory with within; tolerates typos. Each result has a score and match_preview. exhaustive=false: not all were looked at.

        session_id: Default: all you may see.
        fuzzy_threshold: Lowest score. Default: 60.
        limit: Default: 10.
        scope: The messages' visibility. Default: all.
        search_metadata: Default: True.
        sort: Default: score.
        within: Default: messages.
        mode: semantic, hybrid: if the server has the extra. Default: fuzzy.
        """
        return make_call(
            registry.SEARCH_CONTEXT,
            SearchResults,
            session_id=session_id,
            query=query,
            fuzzy_threshold=fuzzy_threshold,
            limit=limit,
            scope=scope,
            search_metadata=search_metadata,
            sender=sender,
            start_time=start_time,
            end_time=end_time,
            sort=sort,
            cursor=cursor,
            within=within,
            mode=mode,
            auth_token=auth_token,
        )

    def acknowledge_message(
        self, session_id: str, message_id: int, *, auth_token: str | None = None
    ) -> Call[MessageAcknowledged]:
        """Confirm a message with requires_ack. Its sender calls it to see who has, and who has not."""
        return make_call(
            registry.ACKNOWLEDGE_MESSAGE,
            MessageAcknowledged,
            session_id=session_id,
            message_id=message_id,
            auth_token=auth_token,
        )

    def set_memory(
        self,
        key: str,
        value: Any | Missing = MISSING,
        session_id: str | None = None,
        *,
        scope: MemoryScope | None = None,
        expires_in: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        mode: MemoryMode | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        lease: str | None = None,
        fencing_token: int | None = None,
        auth_token: str | None = None,
    ) -> Call[MemorySet]:
        """Store a JSON value under a key, for yourself or, with scope shared, for others. Returns its version, from 1. With expected_version, a value that others have changed is a CONFLICT and stays.

        session_id: Default: no session.
        scope: shared: all who may read the session. Default: private.
        mode: merge: an object as JSON merge patch. append: to a list or text. increment: by value. Default: replace.
        expected_version: 0: must not exist.
        lease: Refuse unless you hold it (in session_id).
        """
        return make_call(
            registry.SET_MEMORY,
            MemorySet,
            key=key,
            value=value,
            session_id=session_id,
            scope=scope,
            expires_in=expires_in,
            metadata=metadata,
            mode=mode,
            expected_version=expected_version,
            idempotency_key=idempotency_key,
            lease=lease,
            fencing_token=fencing_token,
            auth_token=auth_token,
        )

    def get_memory(
        self,
        key: str,
        session_id: str | None = None,
        *,
        scope: MemoryScope | None = None,
        auth_token: str | None = None,
    ) -> Call[MemoryValue]:
        """Read the value under a key, with its version and who stored it. Shared ones need scope=shared.

        scope: Default: private.
        """
        return make_call(
            registry.GET_MEMORY,
            MemoryValue,
            key=key,
            session_id=session_id,
            scope=scope,
            auth_token=auth_token,
        )

    def list_memory(
        self,
        session_id: str | None = None,
        *,
        scope: MemoryScope | None = None,
        prefix: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        auth_token: str | None = None,
    ) -> Call[MemoryList]:
        """Find keys: with versions, sizes and metadata, without values.

        scope: Default: private.
        limit: Default: 50.
        """
        return make_call(
            registry.LIST_MEMORY,
            MemoryList,
            session_id=session_id,
            scope=scope,
            prefix=prefix,
            limit=limit,
            cursor=cursor,
            auth_token=auth_token,
        )

    def delete_memory(
        self,
        key: str,
        session_id: str | None = None,
        *,
        scope: MemoryScope | None = None,
        expected_version: int | None = None,
        auth_token: str | None = None,
    ) -> Call[MemoryDeleted]:
        """Delete the value under a key; with expected_version only if it is still that one.

        scope: Default: private.
        """
        return make_call(
            registry.DELETE_MEMORY,
            MemoryDeleted,
            key=key,
            session_id=session_id,
            scope=scope,
            expected_version=expected_version,
            auth_token=auth_token,
        )

    def acquire_lease(
        self,
        name: str,
        session_id: str | None = None,
        *,
        ttl_seconds: int | None = None,
        wait_seconds: float | None = None,
        paths: Sequence[str] | None = None,
        auth_token: str | None = None,
    ) -> Call[LeaseAcquired]:
        """Hold a name exclusively for ttl_seconds, before work that only one agent may do; call again to renew. acquired=false: holder has it until expires_at. Pass lease and fencing_token to your writes: they are refused once you have lost the lease.

        session_id: Default: server-wide.
        ttl_seconds: Default: 60.
        wait_seconds: How long to wait for the holder. Default: 0.
        paths: Globs such as src/**: also refused if others hold overlapping ones.
        """
        return make_call(
            registry.ACQUIRE_LEASE,
            LeaseAcquired,
            name=name,
            session_id=session_id,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
            paths=paths,
            auth_token=auth_token,
        )

    def release_lease(
        self,
        name: str,
        fencing_token: int,
        session_id: str | None = None,
        *,
        auth_token: str | None = None,
    ) -> Call[LeaseReleased]:
        """Release a lease; released is false if you no longer held it."""
        return make_call(
            registry.RELEASE_LEASE,
            LeaseReleased,
            name=name,
            session_id=session_id,
            fencing_token=fencing_token,
            auth_token=auth_token,
        )

    def list_leases(
        self,
        session_id: str | None = None,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        auth_token: str | None = None,
    ) -> Call[LeaseList]:
        """See who holds which names, and until when: in a session, or server-wide.

        limit: Default: 100.
        """
        return make_call(
            registry.LIST_LEASES,
            LeaseList,
            session_id=session_id,
            limit=limit,
            cursor=cursor,
            auth_token=auth_token,
        )

    def add_task(
        self,
        session_id: str,
        title: str,
        *,
        body: str | None = None,
        depends_on: Sequence[int] | None = None,
        priority: int | None = None,
        assignee: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        auth_token: str | None = None,
    ) -> Call[TaskChanged]:
        """Put a task on the session's board for any agent to claim.

        depends_on: Tasks that must be done first.
        priority: Default: 0.
        assignee: Only this agent may claim it.
        """
        return make_call(
            registry.ADD_TASK,
            TaskChanged,
            session_id=session_id,
            title=title,
            body=body,
            depends_on=depends_on,
            priority=priority,
            assignee=assignee,
            metadata=metadata,
            idempotency_key=idempotency_key,
            auth_token=auth_token,
        )

    def claim_task(
        self,
        session_id: str,
        *,
        task_id: int | None = None,
        ttl_seconds: int | None = None,
        wait_seconds: float | None = None,
        idempotency_key: str | None = None,
        auth_token: str | None = None,
    ) -> Call[TaskClaimed]:
        """Take a task: yours alone for ttl_seconds. task is null if none is ready; hint says why. Claim its task_id again to renew in time. End with finish_task.

        task_id: Default: the first ready one. Name a failed one to retry.
        ttl_seconds: Default: 600.
        wait_seconds: How long to wait for a task. Default: 0.
        """
        return make_call(
            registry.CLAIM_TASK,
            TaskClaimed,
            session_id=session_id,
            task_id=task_id,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
            idempotency_key=idempotency_key,
            auth_token=auth_token,
        )

    def finish_task(
        self,
        session_id: str,
        task_id: int,
        fencing_token: int,
        *,
        outcome: TaskOutcome | None = None,
        result: Any | None = None,
        idempotency_key: str | None = None,
        auth_token: str | None = None,
    ) -> Call[TaskChanged]:
        """End your claim with the fencing_token of claim_task. released makes the task ready again; tasks that depend on it open when it is done.

        outcome: Default: done.
        """
        return make_call(
            registry.FINISH_TASK,
            TaskChanged,
            session_id=session_id,
            task_id=task_id,
            fencing_token=fencing_token,
            outcome=outcome,
            result=result,
            idempotency_key=idempotency_key,
            auth_token=auth_token,
        )

    def list_tasks(
        self,
        session_id: str,
        *,
        state: TaskState | None = None,
        assignee: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        auth_token: str | None = None,
    ) -> Call[TaskList]:
        """List a session's tasks by id, with counts by state.

        limit: Default: 50.
        """
        return make_call(
            registry.LIST_TASKS,
            TaskList,
            session_id=session_id,
            state=state,
            assignee=assignee,
            limit=limit,
            cursor=cursor,
            auth_token=auth_token,
        )

    def list_agents(
        self,
        session_id: str | None = None,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        auth_token: str | None = None,
    ) -> Call[AgentList]:
        """See who else works here, in a session or anywhere: state, status, what each holds and waits for. active: seen in the last 5 minutes.

        limit: Default: 50.
        """
        return make_call(
            registry.LIST_AGENTS,
            AgentList,
            session_id=session_id,
            limit=limit,
            cursor=cursor,
            auth_token=auth_token,
        )

    def set_status(
        self, text: str, *, state: AgentState | None = None, auth_token: str | None = None
    ) -> Call[StatusSet]:
        """Tell the other agents what you are doing when that changes; list_agents shows it.

        text: One line; empty clears it.
        """
        return make_call(
            registry.SET_STATUS, StatusSet, text=text, state=state, auth_token=auth_token
        )

    def get_audit_log(
        self,
        session_id: str | None = None,
        *,
        agent_id: str | None = None,
        event_type: str | None = None,
        after: Moment | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        hashes: bool | None = None,
        auth_token: str | None = None,
    ) -> Call[AuditList]:
        """Find out who did what (event_type, details), newest first. Only for admins.

        limit: Default: 100.
        hashes: Add the hash chain. Default: False.
        """
        return make_call(
            registry.GET_AUDIT_LOG,
            AuditList,
            session_id=session_id,
            agent_id=agent_id,
            event_type=event_type,
            after=after,
            limit=limit,
            cursor=cursor,
            hashes=hashes,
            auth_token=auth_token,
        )

    def get_time(self, *, auth_token: str | None = None) -> Call[TimeResult]:
        """Get the time, and its bounds earliest and latest where they are known. All agents on this machine read the same clock."""
        return make_call(registry.GET_TIME, TimeResult, auth_token=auth_token)

    def get_temperature(self, *, auth_token: str | None = None) -> Call[SensorResult]:
        """Get the machine's temperature in °C; value is null without a thermometer."""
        return make_call(registry.GET_TEMPERATURE, SensorResult, auth_token=auth_token)

    def get_humidity(self, *, auth_token: str | None = None) -> Call[SensorResult]:
        """Get the relative humidity in %; value is null without a hygrometer."""
        return make_call(registry.GET_HUMIDITY, SensorResult, auth_token=auth_token)

    def get_all_sensors(self, *, auth_token: str | None = None) -> Call[SensorsResult]:
        """Get the machine's temperature, humidity, cpu, memory and load, by name."""
        return make_call(registry.GET_ALL_SENSORS, SensorsResult, auth_token=auth_token)
