"""What a person can do to a session: post as overseer, mark as read, close, delete, export."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Permission, Session
from shared_context_server.overseer import KINDS, mark_kind
from shared_context_server.services import session_log, sessions
from shared_context_server.services.line_chain import LineChain
from shared_context_server.tools.written import write_messages
from shared_context_server.ui.log_filters import read_number
from shared_context_server.ui.markdown_export import write_head, write_message
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.problems import CallFailed, Problem
from shared_context_server.ui.session import SESSION_PATH, empty_post, get_summary

PLAIN = "message"


async def post_message(page: PageRequest) -> Response:
    """Post as the person who is signed in. Advice, a redirection and a stop are marked as such in the
    metadata, and mention whom they are for, so that a waiting agent is woken.

    With scripts the answer is the form again, since the live log shows the message."""
    session_id = page.path_param("session_id")
    path = f"/sessions/{session_id}"
    try:
        added = await page.call("add_message", session_id=session_id, **_read_post(page.form))
    except (CallFailed, InvalidArgument) as exc:
        if not page.is_fragment:
            raise
        problem = exc.problem if isinstance(exc, CallFailed) else Problem.of(exc)
        return await _show_post_form(page, session_id, problem=problem, given=page.form)
    if not page.is_fragment:
        return page.redirect(page.address(path) + f"#m{added['seq']}")
    kept = {name: page.form.get(name, "") for name in ("to", "kind", "private")}
    kept["kind"] = PLAIN  # a stop is not to be repeated by accident
    return await _show_post_form(page, session_id, sent_seq=added["seq"], given=kept)


def _read_post(form: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of add_message. Raises InvalidArgument."""
    kind, to = form.get("kind", PLAIN), form.get("to", "").strip()
    if kind not in (PLAIN, *KINDS):
        raise InvalidArgument("kind is not one of the form's.", field="kind")
    is_private = form.get("private") == "on"
    if is_private and not to:
        raise InvalidArgument(
            "A private message needs a recipient.",
            field="to",
            suggestion="Name the agent in “To”, or post to everyone.",
        )
    text = form.get("content", "").strip()
    if not text:
        raise InvalidArgument("Write something first.", field="content", suggestion="Then post it.")
    return {
        "content": f"@{to} {text}" if to and not is_private else text,
        "visibility": "private" if is_private else "public",
        "recipients": [to] if to else [],
        "metadata": {} if kind == PLAIN else mark_kind(kind),
        "parent_message_id": read_number(form, "reply_to"),
        "idempotency_key": form.get("key") or None,
    }


async def _show_post_form(
    page: PageRequest,
    session_id: str,
    *,
    given: Mapping[str, str],
    problem: Problem | None = None,
    sent_seq: int | None = None,
) -> Response:
    return page.render(
        "post_form.html",
        path=f"/sessions/{session_id}",
        problem=problem,
        sent_seq=sent_seq,
        given_post=empty_post() | dict(given),
        post_key=secrets.token_hex(16),
        overseer_kinds=KINDS,
    )


async def mark_read(page: PageRequest) -> Response:
    """Move the person's own cursor to the newest message."""
    session_id = page.path_param("session_id")
    summary = await get_summary(page, session_id)
    if summary.session.last_seq:
        seq = read_number(page.form, "seq") or summary.session.last_seq
        await page.call("mark_read", session_id=session_id, seq=seq)
    return page.redirect(page.address(f"/sessions/{session_id}"))


async def confirm_closing(page: PageRequest) -> Response:
    """What closing means, before it is done."""
    session = await _get_controlled(page)
    path = f"/sessions/{session.id}"
    return page.render(
        "confirm.html",
        title="Close this session?",
        question=f"“{session.purpose}” becomes read-only. Nothing is removed.",
        touches=[
            (
                "",
                "Agents can read it, and can no longer post, write its memory or work on its tasks.",
            ),
            ("", "Calls that wait for its messages end."),
        ],
        note="A closed session cannot be opened again.",
        action=page.address(f"{path}/close"),
        fields=[],
        verb="Close the session",
        back=page.address(path),
        trail=_trail(page, session, "Close"),
    )


async def close(page: PageRequest) -> Response:
    session_id = page.path_param("session_id")
    await page.call("close_session", session_id=session_id)
    return page.redirect(page.address(f"/sessions/{session_id}"))


async def confirm_deletion(page: PageRequest) -> Response:
    """How much will be deleted, also of what the person may not see."""
    session = await _get_controlled(page)
    found = await sessions.preview_deletion(page.services, page.caller, session.id)
    touches = [
        (found.messages, _plural(found.messages, "message")),
        (found.memory_entries, _plural(found.memory_entries, "memory entry", "memory entries")),
        (found.tasks, _plural(found.tasks, "task")),
        (
            found.leases_held,
            _plural(found.leases_held, "lease that is held", "leases that are held"),
        ),
        (found.cursors, _plural(found.cursors, "read position")),
    ]
    path = f"/sessions/{session.id}"
    return page.render(
        "confirm.html",
        title="Delete this session?",
        question=f"“{session.purpose}” is removed for everyone, with everything in it:",
        touches=[(count, what) for count, what in touches if count] or [("", "It is empty.")],
        note="Messages that you may not see, and others’ private memory in it, are among them. It cannot be "
        "undone. The audit log keeps who deleted it.",
        action=page.address(f"{path}/delete"),
        fields=[],
        verb="Delete the session",
        back=page.address(path),
        trail=_trail(page, session, "Delete"),
    )


async def delete(page: PageRequest) -> Response:
    await page.call("delete_session", session_id=page.path_param("session_id"))
    return page.redirect(page.address("/sessions"))


async def _get_controlled(page: PageRequest) -> Session:
    """Return the session. Raises PermissionDenied unless the caller may close and delete it."""
    session = await page.services.store.sessions.get(page.path_param("session_id"))
    policy.require_session_control(page.caller, session)
    return session


def _plural(count: int, one: str, many: str | None = None) -> str:
    return one if count == 1 else many or f"{one}s"


def _trail(page: PageRequest, session: Session, what: str) -> list[tuple[str, str | None]]:
    return [
        ("Sessions", page.address("/sessions")),
        (session.purpose, page.address(f"/sessions/{session.id}")),
        (what, None),
    ]


class Download(StreamingResponse):
    """A file that is written while it is sent. It holds one of the caller's slots, as a stream does."""

    def __init__(
        self, page: PageRequest, parts: AsyncGenerator[bytes], name: str, kind: str
    ) -> None:
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        super().__init__(parts, media_type=kind, headers=disposition)
        self._page = page
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._parts):
            with self._page.services.slots.take(self._page.caller):
                await super().__call__(scope, receive, send)


async def export_jsonl(page: PageRequest) -> Response:
    """All messages that the person may see, one a line, as the tools return them. Each line has the value
    of a hash chain, so that `scs verify` finds what was changed."""
    summary = await get_summary(page, page.path_param("session_id"))
    session = summary.session
    return Download(page, _write_jsonl(page, session), f"{session.id}.jsonl", "application/jsonl")


async def export_markdown(page: PageRequest) -> Response:
    """The same for people."""
    summary = await get_summary(page, page.path_param("session_id"))
    session = summary.session
    kind = "text/markdown; charset=utf-8"
    return Download(page, _write_markdown(page, session), f"{session.id}.md", kind)


async def _write_jsonl(page: PageRequest, session: Session) -> AsyncGenerator[bytes]:
    chain = LineChain()
    async with aclosing(session_log.read_all(page.services, page.caller, session.id)) as pages:
        async for messages in pages:
            yield b"".join(chain.write(write_messages([message])) for message in messages)
    first = {"first_seq": session.first_seq} if session.first_seq > 1 else {}
    yield chain.write_end(session_id=session.id, **first)


async def _write_markdown(page: PageRequest, session: Session) -> AsyncGenerator[bytes]:
    yield write_head(session).encode()
    async with aclosing(session_log.read_all(page.services, page.caller, session.id)) as pages:
        async for messages in pages:
            yield "".join(map(write_message, messages)).encode()


PAGES = (
    Page(f"{SESSION_PATH}/post", None, post_message, permission=Permission.WRITE),
    Page(f"{SESSION_PATH}/read", None, mark_read),
    Page(f"{SESSION_PATH}/close", confirm_closing, close, permission=Permission.WRITE),
    Page(f"{SESSION_PATH}/delete", confirm_deletion, delete, permission=Permission.WRITE),
    Page(f"{SESSION_PATH}/export.jsonl", export_jsonl),
    Page(f"{SESSION_PATH}/export.md", export_markdown),
)
