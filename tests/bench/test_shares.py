"""Where a server's processor time goes, from samples of a real one under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.shares import measure


async def test_the_shares_of_a_path_add_up_and_name_the_parts_that_a_call_goes_through(
    tmp_path: Path,
) -> None:
    shares = await measure(tmp_path, seconds=0.2)
    assert len(shares) == 4
    for of in shares.values():
        assert sum(of.values()) == pytest.approx(1, abs=0.01)
    through_sdk = shares["MCP add_message, 2025-06-18, through the SDK"]
    direct = shares["REST add_message"]
    assert through_sdk.get("mcp, fastmcp, mcp_types", 0) > direct.get("mcp, fastmcp, mcp_types", 0)
    assert any(part.startswith("ours: ") for part in direct)
