"""The command `hook`, as far as `__main__` has not run it already: its help and its errors."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.remote_options import RemoteOptions
from shared_context_server.errors import ConfigurationError
from shared_context_server.remote.hook import run_hook
from shared_context_server.remote.hook_options import HookOptions, check_limits


def hook(
    *session_ids: Annotated[str, Parameter(help="Look in these sessions only.")],
    remote: RemoteOptions = RemoteOptions(),  # noqa: B008 - frozen
    timeout: Annotated[float, Parameter(help="Seconds that looking may take.")] = 2.0,
    wake: Annotated[bool, Parameter(negative="", help="Tell on stderr, with exit code 2.")] = False,
    wait: Annotated[float, Parameter(help="Seconds to wait for a mention if there is none.")] = 0.0,
    unattended: Annotated[
        bool, Parameter(negative="", help="Wait in `claude -p` too, which then ends later.")
    ] = False,
    event: Annotated[
        str | None, Parameter(help="The client's event; default: as stdin says.")
    ] = None,
    verbose: Annotated[bool, Parameter(negative="", help="Tell failures on stderr.")] = False,
) -> int:
    """Tell unread messages that mention the agent, once: for the hooks of Claude Code, Codex and
    Gemini CLI.

    Prints what the client's hooks answer with, which adds the messages to the model's context. Says
    nothing if there are none, or if the server cannot be reached.
    """
    options = HookOptions()
    options.url, options.data_dir, options.agent_id = remote.url, remote.data_dir, remote.agent_id
    options.timeout, options.wait, options.event = timeout, wait, event
    options.wake, options.verbose, options.unattended = wake, verbose, unattended
    options.session_ids = list(session_ids)
    if wrong := check_limits(options):
        raise ConfigurationError(wrong)
    return run_hook(options)
