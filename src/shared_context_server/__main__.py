"""The program: `shared-context-server`, `scs` and `python -m shared_context_server`."""

from __future__ import annotations

import sys

_INTERRUPTED = 130  # as remote/exits.py has it, which may not be imported yet


def main() -> None:
    """Run the command in sys.argv. Ctrl-C ends it without a traceback, also while it still starts.

    `hook` runs at every step of an agent: it does without the modules of the other commands, whose
    import takes longer than a hook may. Where its command line is not a usual one, the complete
    command line parser explains it.
    """
    try:
        _main()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _main() -> None:
    if sys.argv[1:2] == ["hook"]:
        from shared_context_server.remote.hook import run_hook  # noqa: PLC0415
        from shared_context_server.remote.hook_options import parse_plainly  # noqa: PLC0415

        options = parse_plainly(sys.argv[2:])
        if options is not None:
            sys.exit(run_hook(options))
    from shared_context_server.cli import main as run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
