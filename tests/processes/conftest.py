"""The fixtures of servers in processes of their own."""

from __future__ import annotations

from tests.cli.conftest import env, scs, serve

__all__ = ["env", "scs", "serve"]
