"""MCP prompts: texts that get agents going; they hold no data of the store."""

from __future__ import annotations

from typing import Any

from fastmcp import FastMCP

from shared_context_server.display import show_line, show_name, show_quoted

INSTRUCTIONS = """\
Shared memory and messages for agents that work together.
1. No identity yet? authenticate_agent(agent_id, api_key) once; its `next` says what auth_token to send with each call.
2. list_sessions, or create_session(purpose). Share findings with add_message; catch up with get_digest.
3. Read on with get_messages(after_seq=next_after_seq), then mark_read. Find things with search_context.
4. set_memory keeps values: private, or scope="shared"; use expected_version so that no one is overwritten.
Retrying a write? Repeat its idempotency_key. Errors say what to do in "suggestion".
"""


def add_prompts(mcp: FastMCP[Any]) -> None:
    """Serve the prompts of DESIGN section 4."""

    @mcp.prompt(name="set_up_collaboration", description="Start a session for several agents.")
    def set_up_collaboration(purpose: str, agents: str = "") -> str:
        purpose = show_line(purpose)
        others = f" The other agents are: {show_line(agents)}." if agents else ""
        return (
            f"Set up a shared session for this purpose: {purpose}.{others}\n"
            "1. Call create_session with that purpose"
            " (access=invited and participants, if only these agents may read it).\n"
            "2. Add one message that states the goal, who does what, and how decisions are marked:"
            ' metadata {"type": "decision"} and {"type": "question"}.\n'
            "3. Put agreed facts into set_memory with the session_id and scope=shared.\n"
            "4. Tell me the session_id, so that I can give it to the other agents."
        )

    @mcp.prompt(name="catch_up", description="Read what happened in a session since last time.")
    def catch_up(session_id: str) -> str:
        session_id = show_name(session_id)
        return (
            f"Catch up on session {session_id}: call get_digest; if it leaves something open, read"
            " it with get_messages or search_context. Answer open questions that are yours with"
            " add_message and parent_message_id. Then call mark_read with next_after_seq, and tell"
            " me in a few sentences what changed and what is expected of you."
        )

    @mcp.prompt(name="hand_over", description="Leave your work so that another agent can go on.")
    def hand_over(session_id: str, to_agent: str = "") -> str:
        session_id = show_name(session_id)
        to = f" with recipients [{show_quoted(to_agent)}]" if to_agent else ""
        return (
            f"Hand over your work in session {session_id}: add one message{to} that says what is"
            " done, what is open, what you tried that failed, and where files and results are;"
            ' give it metadata {"type": "handover"}. Store machine-readable state with set_memory'
            " (session_id, scope=shared) under the key handover. Be brief and concrete."
        )
