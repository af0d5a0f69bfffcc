"""`python -m shared_context_server` runs the command line."""

from __future__ import annotations

from shared_context_server.cli import main

if __name__ == "__main__":
    main()
