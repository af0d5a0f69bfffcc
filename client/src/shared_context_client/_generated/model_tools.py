# Written by `make docs` from the server's registry of tools. Do not edit.
"""The tools as a model is shown them."""

from __future__ import annotations

from shared_context_client._generated import registry
from shared_context_client._generated.results import (
    AgentList,
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
    MemorySet,
    MemoryValue,
    MessageAcknowledged,
    MessageAdded,
    MessageList,
    SearchResults,
    SensorResult,
    SensorsResult,
    SessionDetails,
    SessionPage,
    StatusSet,
    TaskChanged,
    TaskClaimed,
    TaskList,
    TimeResult,
    WaitResult,
)
from shared_context_client.model_tool import ModelTool

MODEL_TOOLS = (
    ModelTool(
        registry.CREATE_SESSION,
        CreatedSession,
        "Start a session, a shared log of messages, if list_sessions has none that fits. Give its session_id to the other agents.",
        {
            "properties": {
                "purpose": {"maxLength": 500, "minLength": 1, "type": "string"},
                "metadata": {"type": "object"},
                "access": {
                    "enum": ["open", "invited"],
                    "type": "string",
                    "default": "open",
                    "description": "invited: you, participants, admins.",
                },
                "participants": {
                    "items": {"maxLength": 128, "minLength": 1, "type": "string"},
                    "maxItems": 200,
                    "type": "array",
                },
            },
            "required": ["purpose"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.LIST_SESSIONS,
        SessionPage,
        "Find a session to work in: those you may read, newest first, with purpose, status, message_count and your unread count.",
        {
            "properties": {
                "status": {
                    "default": "active",
                    "enum": ["active", "closed", "all"],
                    "type": "string",
                },
                "limit": {"default": 50, "minimum": 1, "maximum": 200, "type": "integer"},
                "cursor": {"description": "next_cursor.", "maxLength": 2000, "type": "string"},
                "created_by": {"maxLength": 128, "minLength": 1, "type": "string"},
            },
            "type": "object",
        },
    ),
    ModelTool(
        registry.GET_SESSION,
        SessionDetails,
        "Look into one session: its purpose, participants and the 50 newest messages you may see.",
        {
            "properties": {"session_id": {"maxLength": 64, "minLength": 1, "type": "string"}},
            "required": ["session_id"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.CLOSE_SESSION,
        ClosedSession,
        "Make a session read-only when its work is done. Only for its creator and admins.",
        {
            "properties": {"session_id": {"maxLength": 64, "minLength": 1, "type": "string"}},
            "required": ["session_id"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.DELETE_SESSION,
        DeletedSession,
        "Delete a session with its messages and memory permanently; close_session keeps them. Only for its creator and admins.",
        {
            "properties": {"session_id": {"maxLength": 64, "minLength": 1, "type": "string"}},
            "required": ["session_id"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.ADD_MESSAGE,
        MessageAdded,
        "Tell the others in a session a finding, decision or question; @agent-id in content mentions one. Returns message_id and seq once it is stored durably.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "content": {"maxLength": 100000, "minLength": 1, "type": "string"},
                "visibility": {
                    "enum": ["public", "private", "agent_only", "admin_only"],
                    "type": "string",
                    "default": "public",
                    "description": "private: you and recipients. agent_only: your agent_type.",
                },
                "recipients": {
                    "items": {"maxLength": 128, "minLength": 1, "type": "string"},
                    "maxItems": 200,
                    "type": "array",
                },
                "metadata": {"type": "object"},
                "parent_message_id": {
                    "minimum": 1,
                    "maximum": 9223372036854775807,
                    "type": "integer",
                },
                "idempotency_key": {
                    "description": "Repeat it when you retry.",
                    "maxLength": 255,
                    "minLength": 1,
                    "type": "string",
                },
                "requires_ack": {
                    "default": False,
                    "description": "Recipients shall acknowledge_message.",
                    "type": "boolean",
                },
                "lease": {
                    "description": "Refuse unless you hold it.",
                    "maxLength": 255,
                    "minLength": 1,
                    "type": "string",
                },
                "fencing_token": {"minimum": 1, "maximum": 9223372036854775807, "type": "integer"},
            },
            "required": ["session_id", "content"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.GET_MESSAGES,
        MessageList,
        "Read messages you may see, in seq order: the newest, or those after after_seq. Continue with after_seq=next_after_seq while has_more.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "limit": {"default": 50, "minimum": 1, "maximum": 1000, "type": "integer"},
                "offset": {
                    "default": 0,
                    "description": "Newest to skip.",
                    "minimum": 0,
                    "maximum": 2147483648,
                    "type": "integer",
                },
                "after_seq": {
                    "description": "Oldest first after it.",
                    "minimum": 0,
                    "maximum": 9223372036854775807,
                    "type": "integer",
                },
                "before_seq": {"minimum": 0, "maximum": 9223372036854775807, "type": "integer"},
                "sender": {"maxLength": 128, "minLength": 1, "type": "string"},
                "visibility": {
                    "enum": ["public", "private", "agent_only", "admin_only"],
                    "type": "string",
                },
                "start_time": {
                    "anyOf": [
                        {"format": "date-time", "type": "string"},
                        {"maximum": 253402300799, "minimum": -62135596800, "type": "number"},
                    ]
                },
                "end_time": {
                    "anyOf": [
                        {"format": "date-time", "type": "string"},
                        {"maximum": 253402300799, "minimum": -62135596800, "type": "number"},
                    ]
                },
                "parent_message_id": {
                    "minimum": 1,
                    "maximum": 9223372036854775807,
                    "type": "integer",
                },
            },
            "required": ["session_id"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.WAIT_FOR_MESSAGES,
        WaitResult,
        "Wait until others have written messages that you may see; do not poll. Returns at once if there are any, else no later than timeout_seconds (timed_out). Then continue with after_seq=next_after_seq (or cursors), and mark_read what you have handled.",
        {
            "properties": {
                "session_id": {
                    "description": "Without session_id and session_ids: all you may read.",
                    "maxLength": 64,
                    "minLength": 1,
                    "type": "string",
                },
                "after_seq": {
                    "description": "Default: your stored cursor.",
                    "minimum": 0,
                    "maximum": 9223372036854775807,
                    "type": "integer",
                },
                "session_ids": {
                    "items": {"maxLength": 64, "minLength": 1, "type": "string"},
                    "maxItems": 100,
                    "minItems": 1,
                    "type": "array",
                },
                "cursors": {
                    "description": "after_seq by session_id, when you wait for several.",
                    "maxProperties": 2000,
                    "type": "object",
                },
                "timeout_seconds": {"default": 25, "minimum": 0, "maximum": 3600, "type": "number"},
                "limit": {"default": 50, "minimum": 1, "maximum": 1000, "type": "integer"},
                "mentions_me": {
                    "default": False,
                    "description": "Only messages to you, or with @your-agent-id.",
                    "type": "boolean",
                },
                "include_own": {
                    "default": False,
                    "description": "Your own messages count too.",
                    "type": "boolean",
                },
                "sender": {"maxLength": 128, "minLength": 1, "type": "string"},
                "visibility": {
                    "enum": ["public", "private", "agent_only", "admin_only"],
                    "type": "string",
                },
            },
            "type": "object",
        },
    ),
    ModelTool(
        registry.MARK_READ,
        MarkedRead,
        "Store the seq up to which you have handled messages; your cursor never moves back. Returns how many are unread.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "seq": {"minimum": 0, "maximum": 9223372036854775807, "type": "integer"},
            },
            "required": ["session_id", "seq"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.GET_DIGEST,
        DigestResult,
        'Catch up in few tokens on what happened since your cursor: who wrote, decisions, open questions, newest messages in full. Then mark_read next_after_seq. Messages count as such by metadata type "decision" or "question".',
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "after_seq": {
                    "description": "Default: your stored cursor.",
                    "minimum": 0,
                    "maximum": 9223372036854775807,
                    "type": "integer",
                },
                "max_tokens": {
                    "default": 2000,
                    "minimum": 50,
                    "maximum": 100000,
                    "type": "integer",
                },
            },
            "required": ["session_id"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.SEARCH_CONTEXT,
        SearchResults,
        "Find messages you may see by their words, in one session or in all, and memory with within; tolerates typos. Each result has a score and match_preview. exhaustive=false: not all were looked at.",
        {
            "properties": {
                "session_id": {
                    "description": "Default: all you may see.",
                    "maxLength": 64,
                    "minLength": 1,
                    "type": "string",
                },
                "query": {"maxLength": 1000, "minLength": 1, "type": "string"},
                "fuzzy_threshold": {
                    "default": 60,
                    "description": "Lowest score.",
                    "minimum": 0,
                    "maximum": 100,
                    "type": "number",
                },
                "limit": {"default": 10, "minimum": 1, "maximum": 100, "type": "integer"},
                "scope": {
                    "default": "all",
                    "description": "The messages' visibility.",
                    "enum": ["all", "public", "private", "agent_only", "admin_only"],
                    "type": "string",
                },
                "search_metadata": {"default": True, "type": "boolean"},
                "sender": {"maxLength": 128, "minLength": 1, "type": "string"},
                "start_time": {
                    "anyOf": [
                        {"format": "date-time", "type": "string"},
                        {"maximum": 253402300799, "minimum": -62135596800, "type": "number"},
                    ]
                },
                "end_time": {
                    "anyOf": [
                        {"format": "date-time", "type": "string"},
                        {"maximum": 253402300799, "minimum": -62135596800, "type": "number"},
                    ]
                },
                "sort": {"enum": ["score", "newest"], "type": "string", "default": "score"},
                "cursor": {"description": "next_cursor.", "maxLength": 2000, "type": "string"},
                "within": {
                    "enum": ["messages", "memory", "all"],
                    "type": "string",
                    "default": "messages",
                },
                "mode": {
                    "enum": ["fuzzy", "semantic", "hybrid"],
                    "type": "string",
                    "default": "fuzzy",
                    "description": "semantic, hybrid: if the server has the extra.",
                },
            },
            "required": ["query"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.ACKNOWLEDGE_MESSAGE,
        MessageAcknowledged,
        "Confirm a message with requires_ack. Its sender calls it to see who has, and who has not.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "message_id": {"minimum": 1, "maximum": 9223372036854775807, "type": "integer"},
            },
            "required": ["session_id", "message_id"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.SET_MEMORY,
        MemorySet,
        "Store a JSON value under a key, for yourself or, with scope shared, for others. Returns its version, from 1. With expected_version, a value that others have changed is a CONFLICT and stays.",
        {
            "properties": {
                "key": {"maxLength": 255, "minLength": 1, "type": "string"},
                "value": {
                    "anyOf": [
                        {"type": "object"},
                        {"type": "array", "items": {"type": "string"}},
                        {"type": "array", "items": {"type": "number"}},
                        {"type": "array", "items": {"type": "object"}},
                        {"type": "string"},
                        {"type": "number"},
                        {"type": "boolean"},
                        {"type": "null"},
                    ]
                },
                "session_id": {
                    "description": "Default: no session.",
                    "maxLength": 64,
                    "minLength": 1,
                    "type": "string",
                },
                "scope": {
                    "enum": ["private", "shared"],
                    "type": "string",
                    "default": "private",
                    "description": "shared: all who may read the session.",
                },
                "expires_in": {
                    "description": "Seconds.",
                    "minimum": 1,
                    "maximum": 315360000,
                    "type": "integer",
                },
                "metadata": {"type": "object"},
                "mode": {
                    "enum": ["replace", "create", "merge", "append", "increment"],
                    "type": "string",
                    "default": "replace",
                    "description": "merge: an object as JSON merge patch. append: to a list or text. increment: by value.",
                },
                "expected_version": {
                    "description": "0: must not exist.",
                    "minimum": 0,
                    "maximum": 9223372036854775807,
                    "type": "integer",
                },
                "idempotency_key": {"maxLength": 255, "minLength": 1, "type": "string"},
                "lease": {
                    "description": "Refuse unless you hold it (in session_id).",
                    "maxLength": 255,
                    "minLength": 1,
                    "type": "string",
                },
                "fencing_token": {"minimum": 1, "maximum": 9223372036854775807, "type": "integer"},
            },
            "required": ["key"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.GET_MEMORY,
        MemoryValue,
        "Read the value under a key, with its version and who stored it. Shared ones need scope=shared.",
        {
            "properties": {
                "key": {"maxLength": 255, "minLength": 1, "type": "string"},
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "scope": {"enum": ["private", "shared"], "type": "string", "default": "private"},
            },
            "required": ["key"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.LIST_MEMORY,
        MemoryList,
        "Find keys: with versions, sizes and metadata, without values.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "scope": {"enum": ["private", "shared"], "type": "string", "default": "private"},
                "prefix": {"default": "", "maxLength": 255, "type": "string"},
                "limit": {"default": 50, "minimum": 1, "maximum": 1000, "type": "integer"},
                "cursor": {"description": "next_cursor.", "maxLength": 2000, "type": "string"},
            },
            "type": "object",
        },
    ),
    ModelTool(
        registry.DELETE_MEMORY,
        MemoryDeleted,
        "Delete the value under a key; with expected_version only if it is still that one.",
        {
            "properties": {
                "key": {"maxLength": 255, "minLength": 1, "type": "string"},
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "scope": {"enum": ["private", "shared"], "type": "string", "default": "private"},
                "expected_version": {
                    "minimum": 0,
                    "maximum": 9223372036854775807,
                    "type": "integer",
                },
            },
            "required": ["key"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.ACQUIRE_LEASE,
        LeaseAcquired,
        "Hold a name exclusively for ttl_seconds, before work that only one agent may do; call again to renew. acquired=false: holder has it until expires_at. Pass lease and fencing_token to your writes: they are refused once you have lost the lease.",
        {
            "properties": {
                "name": {"maxLength": 255, "minLength": 1, "type": "string"},
                "session_id": {
                    "description": "Default: server-wide.",
                    "maxLength": 64,
                    "minLength": 1,
                    "type": "string",
                },
                "ttl_seconds": {"default": 60, "minimum": 1, "maximum": 86400, "type": "integer"},
                "wait_seconds": {
                    "default": 0,
                    "description": "How long to wait for the holder.",
                    "minimum": 0,
                    "maximum": 120,
                    "type": "number",
                },
                "paths": {
                    "description": "Globs such as src/**: also refused if others hold overlapping ones.",
                    "items": {"maxLength": 200, "type": "string"},
                    "maxItems": 20,
                    "type": "array",
                },
            },
            "required": ["name"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.RELEASE_LEASE,
        LeaseReleased,
        "Release a lease; released is false if you no longer held it.",
        {
            "properties": {
                "name": {"maxLength": 255, "minLength": 1, "type": "string"},
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "fencing_token": {"minimum": 1, "maximum": 9223372036854775807, "type": "integer"},
            },
            "required": ["name", "fencing_token"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.LIST_LEASES,
        LeaseList,
        "See who holds which names, and until when: in a session, or server-wide.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "limit": {"default": 100, "minimum": 1, "maximum": 1000, "type": "integer"},
                "cursor": {"description": "next_cursor.", "maxLength": 2000, "type": "string"},
            },
            "type": "object",
        },
    ),
    ModelTool(
        registry.ADD_TASK,
        TaskChanged,
        "Put a task on the session's board for any agent to claim.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "title": {"maxLength": 500, "minLength": 1, "type": "string"},
                "body": {"maxLength": 100000, "minLength": 1, "type": "string"},
                "depends_on": {
                    "description": "Tasks that must be done first.",
                    "items": {"minimum": 1, "maximum": 9223372036854775807, "type": "integer"},
                    "maxItems": 100,
                    "type": "array",
                },
                "priority": {"default": 0, "minimum": -1000, "maximum": 1000, "type": "integer"},
                "assignee": {
                    "description": "Only this agent may claim it.",
                    "maxLength": 128,
                    "minLength": 1,
                    "type": "string",
                },
                "metadata": {"type": "object"},
                "idempotency_key": {"maxLength": 255, "minLength": 1, "type": "string"},
            },
            "required": ["session_id", "title"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.CLAIM_TASK,
        TaskClaimed,
        "Take a task: yours alone for ttl_seconds. task is null if none is ready; hint says why. Claim its task_id again to renew in time. End with finish_task.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "task_id": {
                    "description": "Default: the first ready one. Name a failed one to retry.",
                    "minimum": 1,
                    "maximum": 9223372036854775807,
                    "type": "integer",
                },
                "ttl_seconds": {"default": 600, "minimum": 1, "maximum": 86400, "type": "integer"},
                "wait_seconds": {
                    "default": 0,
                    "description": "How long to wait for a task.",
                    "minimum": 0,
                    "maximum": 120,
                    "type": "number",
                },
                "idempotency_key": {"maxLength": 255, "minLength": 1, "type": "string"},
            },
            "required": ["session_id"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.FINISH_TASK,
        TaskChanged,
        "End your claim with the fencing_token of claim_task. released makes the task ready again; tasks that depend on it open when it is done.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "task_id": {"minimum": 1, "maximum": 9223372036854775807, "type": "integer"},
                "fencing_token": {"minimum": 1, "maximum": 9223372036854775807, "type": "integer"},
                "outcome": {
                    "enum": ["done", "failed", "released"],
                    "type": "string",
                    "default": "done",
                },
                "result": {
                    "anyOf": [
                        {"type": "object"},
                        {"type": "array", "items": {"type": "string"}},
                        {"type": "array", "items": {"type": "number"}},
                        {"type": "array", "items": {"type": "object"}},
                        {"type": "string"},
                        {"type": "number"},
                        {"type": "boolean"},
                        {"type": "null"},
                    ]
                },
                "idempotency_key": {"maxLength": 255, "minLength": 1, "type": "string"},
            },
            "required": ["session_id", "task_id", "fencing_token"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.LIST_TASKS,
        TaskList,
        "List a session's tasks by id, with counts by state.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "state": {
                    "enum": ["ready", "blocked", "claimed", "done", "failed"],
                    "type": "string",
                },
                "assignee": {"maxLength": 128, "minLength": 1, "type": "string"},
                "limit": {"default": 50, "minimum": 1, "maximum": 200, "type": "integer"},
                "cursor": {"description": "next_cursor.", "maxLength": 2000, "type": "string"},
            },
            "required": ["session_id"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.LIST_AGENTS,
        AgentList,
        "See who else works here, in a session or anywhere: state, status, what each holds and waits for. active: seen in the last 5 minutes.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "limit": {"default": 50, "minimum": 1, "maximum": 1000, "type": "integer"},
                "cursor": {"description": "next_cursor.", "maxLength": 2000, "type": "string"},
            },
            "type": "object",
        },
    ),
    ModelTool(
        registry.SET_STATUS,
        StatusSet,
        "Tell the other agents what you are doing when that changes; list_agents shows it.",
        {
            "properties": {
                "text": {
                    "description": "One line; empty clears it.",
                    "maxLength": 500,
                    "type": "string",
                },
                "state": {"enum": ["working", "blocked", "idle", "done"], "type": "string"},
            },
            "required": ["text"],
            "type": "object",
        },
    ),
    ModelTool(
        registry.GET_AUDIT_LOG,
        AuditList,
        "Find out who did what (event_type, details), newest first. Only for admins.",
        {
            "properties": {
                "session_id": {"maxLength": 64, "minLength": 1, "type": "string"},
                "agent_id": {"maxLength": 128, "minLength": 1, "type": "string"},
                "event_type": {"maxLength": 64, "type": "string"},
                "after": {
                    "anyOf": [
                        {"format": "date-time", "type": "string"},
                        {"maximum": 253402300799, "minimum": -62135596800, "type": "number"},
                    ]
                },
                "limit": {"default": 100, "minimum": 1, "maximum": 1000, "type": "integer"},
                "cursor": {"description": "next_cursor.", "maxLength": 2000, "type": "string"},
                "hashes": {
                    "default": False,
                    "description": "Add the hash chain.",
                    "type": "boolean",
                },
            },
            "type": "object",
        },
    ),
    ModelTool(
        registry.GET_TIME,
        TimeResult,
        "Get the time, and its bounds earliest and latest where they are known. All agents on this machine read the same clock.",
        {"properties": {}, "type": "object"},
    ),
    ModelTool(
        registry.GET_TEMPERATURE,
        SensorResult,
        "Get the machine's temperature in °C; value is null without a thermometer.",
        {"properties": {}, "type": "object"},
    ),
    ModelTool(
        registry.GET_HUMIDITY,
        SensorResult,
        "Get the relative humidity in %; value is null without a hygrometer.",
        {"properties": {}, "type": "object"},
    ),
    ModelTool(
        registry.GET_ALL_SENSORS,
        SensorsResult,
        "Get the machine's temperature, humidity, cpu, memory and load, by name.",
        {"properties": {}, "type": "object"},
    ),
)
"""All tools of the server this client was made for, but those for credentials."""
