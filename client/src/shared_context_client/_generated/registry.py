# Written by `make docs` from the server's registry of tools. Do not edit.
"""What may be repeated, by the server's own hints."""

from __future__ import annotations

from shared_context_client.wire import Tool

AUTHENTICATE_AGENT = Tool("authenticate_agent")
REFRESH_TOKEN = Tool("refresh_token")
REVOKE_TOKEN = Tool("revoke_token", is_repeatable=True)
CREATE_SESSION = Tool("create_session")
LIST_SESSIONS = Tool("list_sessions", is_repeatable=True)
GET_SESSION = Tool("get_session", is_repeatable=True)
CLOSE_SESSION = Tool("close_session", is_repeatable=True)
DELETE_SESSION = Tool("delete_session", is_repeatable=True)
ADD_MESSAGE = Tool("add_message", takes_key=True)
GET_MESSAGES = Tool("get_messages", is_repeatable=True)
WAIT_FOR_MESSAGES = Tool(
    "wait_for_messages", is_repeatable=True, waits_by="timeout_seconds", default_wait_s=25.0
)
MARK_READ = Tool("mark_read", is_repeatable=True)
GET_DIGEST = Tool("get_digest", is_repeatable=True)
SEARCH_CONTEXT = Tool("search_context", is_repeatable=True)
ACKNOWLEDGE_MESSAGE = Tool("acknowledge_message", is_repeatable=True)
SET_MEMORY = Tool("set_memory", takes_key=True, null_is_a_value=frozenset(["value"]))
GET_MEMORY = Tool("get_memory", is_repeatable=True)
LIST_MEMORY = Tool("list_memory", is_repeatable=True)
DELETE_MEMORY = Tool("delete_memory", is_repeatable=True)
ACQUIRE_LEASE = Tool(
    "acquire_lease", is_repeatable=True, waits_by="wait_seconds", default_wait_s=0.0
)
RELEASE_LEASE = Tool("release_lease", is_repeatable=True)
LIST_LEASES = Tool("list_leases", is_repeatable=True)
ADD_TASK = Tool("add_task", takes_key=True)
CLAIM_TASK = Tool("claim_task", takes_key=True, waits_by="wait_seconds", default_wait_s=0.0)
FINISH_TASK = Tool("finish_task", takes_key=True)
LIST_TASKS = Tool("list_tasks", is_repeatable=True)
LIST_AGENTS = Tool("list_agents", is_repeatable=True)
SET_STATUS = Tool("set_status", is_repeatable=True)
GET_AUDIT_LOG = Tool("get_audit_log", is_repeatable=True)
GET_TIME = Tool("get_time", is_repeatable=True)
GET_TEMPERATURE = Tool("get_temperature", is_repeatable=True)
GET_HUMIDITY = Tool("get_humidity", is_repeatable=True)
GET_ALL_SENSORS = Tool("get_all_sensors", is_repeatable=True)
TOOLS = (
    AUTHENTICATE_AGENT,
    REFRESH_TOKEN,
    REVOKE_TOKEN,
    CREATE_SESSION,
    LIST_SESSIONS,
    GET_SESSION,
    CLOSE_SESSION,
    DELETE_SESSION,
    ADD_MESSAGE,
    GET_MESSAGES,
    WAIT_FOR_MESSAGES,
    MARK_READ,
    GET_DIGEST,
    SEARCH_CONTEXT,
    ACKNOWLEDGE_MESSAGE,
    SET_MEMORY,
    GET_MEMORY,
    LIST_MEMORY,
    DELETE_MEMORY,
    ACQUIRE_LEASE,
    RELEASE_LEASE,
    LIST_LEASES,
    ADD_TASK,
    CLAIM_TASK,
    FINISH_TASK,
    LIST_TASKS,
    LIST_AGENTS,
    SET_STATUS,
    GET_AUDIT_LOG,
    GET_TIME,
    GET_TEMPERATURE,
    GET_HUMIDITY,
    GET_ALL_SENSORS,
)
"""All tools of the server this client was made for."""
