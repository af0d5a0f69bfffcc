"""What `serve` says of identity at its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared_context_server.cli.banner import compose_banner
from shared_context_server.settings import IdentityMode
from tests.settings import make_settings


@pytest.mark.parametrize(
    "settings, is_told",
    [
        ({"http_host": "0.0.0.0"}, True),
        ({"http_host": "127.0.0.1"}, False),
        ({"http_host": "0.0.0.0", "identity": IdentityMode.BOUND}, False),
    ],
)
def test_one_line_says_where_others_can_connect_that_the_shared_key_names_nobody(
    settings: dict[str, Any], is_told: bool, tmp_path: Path
) -> None:
    banner = compose_banner(make_settings(tmp_path, **settings), 8000, are_keys_new=False)
    found = [line for line in banner.splitlines() if "IDENTITY=bound" in line]
    assert len(found) == is_told
    assert all("scs keys create" in line for line in found)
    assert ("keys create --agent-id claude-code" in banner) == ("identity" in settings)
