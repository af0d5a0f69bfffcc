# Written by `make docs` from the server's registry of tools. Do not edit.
"""One method for each write that may be repeated, that takes it into the outbox."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from shared_context_client._generated import registry
from shared_context_client._generated.results import (
    MemoryMode,
    MemoryScope,
    MemorySet,
    MessageAdded,
    Visibility,
)
from shared_context_client.wire import MISSING, Missing, Record, Tool

R = TypeVar("R", bound=Record)


class OutboxTools:
    """One method for each write that may be repeated, that takes it into the outbox."""

    def _call(self, tool: Tool, arguments: dict[str, Any], result: type[R]) -> Future[R]:
        raise NotImplementedError

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
        lease: str | None = None,
        fencing_token: int | None = None,
        auth_token: str | None = None,
    ) -> Future[MessageAdded]:
        """Add a message to a session. Answers once it is stored durably.

        visibility: private: you and recipients. agent_only: your agent_type. Default: public.
        idempotency_key: Repeat it when you retry.
        lease: Refuse unless you hold it.
        """
        arguments: dict[str, Any] = {
            "session_id": session_id,
            "content": content,
            "visibility": visibility,
            "recipients": recipients,
            "metadata": metadata,
            "parent_message_id": parent_message_id,
            "idempotency_key": idempotency_key,
            "lease": lease,
            "fencing_token": fencing_token,
            "auth_token": auth_token,
        }
        return self._call(registry.ADD_MESSAGE, arguments, MessageAdded)

    def set_memory(
        self,
        key: str,
        value: Any | Missing = MISSING,
        *,
        session_id: str | None = None,
        scope: MemoryScope | None = None,
        expires_in: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        mode: MemoryMode | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        lease: str | None = None,
        fencing_token: int | None = None,
        auth_token: str | None = None,
    ) -> Future[MemorySet]:
        """Store a JSON value under a key; your own unless scope is shared. Versions count from 1.

        session_id: Default: no session.
        scope: shared: all who may read the session. Default: private.
        mode: merge: an object as JSON merge patch. append: to a list or text. increment: by value. Default: replace.
        lease: Refuse unless you hold it (in session_id).
        """
        arguments: dict[str, Any] = {
            "key": key,
            "value": value,
            "session_id": session_id,
            "scope": scope,
            "expires_in": expires_in,
            "metadata": metadata,
            "mode": mode,
            "expected_version": expected_version,
            "idempotency_key": idempotency_key,
            "lease": lease,
            "fencing_token": fencing_token,
            "auth_token": auth_token,
        }
        return self._call(registry.SET_MEMORY, arguments, MemorySet)
