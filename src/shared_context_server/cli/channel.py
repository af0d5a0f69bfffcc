"""The command `channel`: pushes messages into a conversation of Claude Code."""

from __future__ import annotations

import sys

from shared_context_server.cli.remote_options import RemoteOptions
from shared_context_server.cli.watch import (
    ALL,
    Mentions,
    Senders,
    SessionArgument,
    make_wanted,
    note,
)
from shared_context_server.remote.channel import Channel
from shared_context_server.remote.watch import NOW, Watch


def channel(
    session: SessionArgument = ALL,
    remote: RemoteOptions = RemoteOptions(),  # noqa: B008 - frozen
    *,
    mentions_me: Mentions = False,
    sender: Senders = (),
) -> None:
    """Serve a channel of Claude Code (preview) on stdin and stdout: messages arrive in the
    conversation as they come.

    Claude Code starts it, with --dangerously-load-development-channels server:NAME.
    """
    wanted = make_wanted(remote, session, NOW, mentions_me, sender, own=False)
    watch = Watch(remote.find_access, wanted, note)
    Channel(watch, sys.stdout.buffer, note).serve(sys.stdin.buffer)
