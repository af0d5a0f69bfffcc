"""One right call of each tool, for the tests that compare surfaces and answers with their descriptions."""

from __future__ import annotations

from typing import Any

from tests.settings import API_KEY

SESSION = "<session>"
"""Stands for the id of a session that the test has made."""

IN_SESSION = {"session_id": SESSION}
RIGHT_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("authenticate_agent", {"agent_id": "alice", "api_key": API_KEY}),
    ("refresh_token", {}),
    ("revoke_token", {"jti": "00000000-0000-4000-8000-000000000000"}),
    ("create_session", {"purpose": "another", "metadata": {"a": [None, 1.5, {"b": True}]}}),
    ("list_sessions", {"limit": 1}),
    ("get_session", IN_SESSION),
    (
        "add_message",
        {
            **IN_SESSION,
            "content": "häl\u2028lo \U0001f600 </script>",
            "metadata": {"a": 1},
            "requires_ack": True,
        },
    ),
    ("get_messages", {**IN_SESSION, "limit": 3}),
    ("wait_for_messages", {**IN_SESSION, "timeout_seconds": 0}),
    ("acknowledge_message", {**IN_SESSION, "message_id": 1}),
    ("mark_read", {**IN_SESSION, "seq": 1}),
    ("get_digest", IN_SESSION),
    ("search_context", {**IN_SESSION, "query": "hello"}),
    ("set_memory", {"key": "k", "value": {"deep": [[[]]], "none": None, "large": 2**60}}),
    ("get_memory", {"key": "k"}),
    ("list_memory", {}),
    ("delete_memory", {"key": "k"}),
    ("acquire_lease", {"name": "l", **IN_SESSION}),
    ("release_lease", {"name": "l", **IN_SESSION, "fencing_token": 1}),
    ("list_leases", IN_SESSION),
    ("set_status", {"text": "testing", "state": "working"}),
    ("add_task", {**IN_SESSION, "title": "Test it", "metadata": {"a": 1}}),
    ("claim_task", IN_SESSION),
    ("finish_task", {**IN_SESSION, "task_id": 1, "fencing_token": 1, "result": {"a": None}}),
    ("list_tasks", IN_SESSION),
    ("list_agents", {}),
    ("get_audit_log", {}),
    ("get_time", {}),
    ("get_temperature", {}),
    ("get_humidity", {}),
    ("get_all_sensors", {}),
    ("close_session", {"session_id": "none"}),
    ("delete_session", {"session_id": "none"}),
]
"""In an order that leaves something to find for the next."""
