"""The command `post`: adds a message to a session."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.hub.calls import call
from shared_context_server.cli.hub.options import AsJson, HubOptions, Quiet
from shared_context_server.cli.show.values import note, print_json, show_agent, without_success
from shared_context_server.cli.texts import read_object, read_text
from shared_context_server.overseer import mark_kind
from shared_context_server.remote import exits


class Visibility(StrEnum):
    PUBLIC = "public"
    PRIVATE = "private"
    AGENT_ONLY = "agent_only"
    ADMIN_ONLY = "admin_only"


def post(
    session: Annotated[str, Parameter(help="Id of the session.")],
    *text: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="The message; - reads it from stdin.")
    ],
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    to: Annotated[
        tuple[str, ...], Parameter(negative="", help="Agent it is addressed to; repeatable.")
    ] = (),
    visibility: Annotated[
        Visibility, Parameter(help="Who sees it; private: you and those in --to.")
    ] = Visibility.PUBLIC,
    kind: Annotated[
        str | None,
        Parameter(
            help="Its `type` in the metadata, such as decision or question. advice, redirect and "
            "stop are an overseer's."
        ),
    ] = None,
    metadata: Annotated[str | None, Parameter(help="A JSON object.")] = None,
    parent: Annotated[int | None, Parameter(help="Id of the message it answers.")] = None,
    requires_ack: Annotated[
        bool, Parameter(negative="", help="Those in --to shall acknowledge it.")
    ] = False,
    idempotency_key: Annotated[
        str | None, Parameter(help="The same key again posts nothing again.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Add a message to a session, and print its seq and its id."""
    content = read_text(text).rstrip("\n")  # as `echo` ends a text
    if not content.strip():
        raise CommandFailed("The message is empty.", exit_code=exits.USAGE)
    if visibility is Visibility.PRIVATE and not to:
        raise CommandFailed(
            "A private message without --to reaches nobody.",
            "Name its readers with --to, or leave --visibility out.",
            exits.USAGE,
        )
    given = read_object(metadata, "--metadata")
    if kind is not None:
        given = {**(given or {}), **mark_kind(kind)}
    with hub_options.open_hub() as hub:
        answer = call(
            hub,
            "add_message",
            session_id=session,
            content=content,
            recipients=list(to) or None,
            visibility=visibility.value,
            metadata=given,
            parent_message_id=parent,
            requires_ack=requires_ack or None,
            idempotency_key=idempotency_key,
        )
    if unknown := answer.get("unknown_recipients"):
        names = ", ".join(map(show_agent, unknown))
        note(f"No agent of this name has been seen yet: {names}. Is it misspelt?")
    if as_json:
        print_json(without_success(answer))
    elif not quiet:
        print(f"#{answer['seq']}\t{answer['message_id']}")
