"""The examples of the client's page run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared_context_client import SharedContextClient
from tests.client.conftest import API_KEY, PATIENCE_S, create_session

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/client.md").read_text(encoding="utf-8")

SAID = {
    "sync": "1 bob Two tests are still red.\n",
    "async": "1 Who checks the changelog?\n2 Deploying.\n",
    "outbox": "3 waiting\nstored as [1, 2, 3]\n0 left\n",
    "batch": "250 MEMORY_NOT_FOUND\n",
}


TASKS_SAID = """\
1 done Test the parser: done
2 done Check the docs: done
3 done Release: done
"""


def test_every_example_is_tested() -> None:
    assert re.findall(r"<!-- (\w+): tested -->\s+```python\n", PAGE) == list(SAID)
    assert PAGE.count("```python\n") == len(SAID)


def run_block(page: str, mark: str, **variables: str) -> tuple[str, str]:
    """What the example of that name prints on stdout and stderr."""
    found = re.search(rf"<!-- {mark}: tested -->\s+```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    answer = subprocess.run(
        [sys.executable, "-c", found[1]],
        env=os.environ
        | {"SCS_API_KEY": API_KEY, "PYTHONPATH": str(ROOT / "client/src")}
        | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return answer.stdout, answer.stderr


@pytest.mark.parametrize("mark", SAID)
async def test_the_example_works(mark: str, server_url: str, client: SharedContextClient) -> None:
    session_id = await create_session(client)
    assert run_block(PAGE, mark, SCS_URL=server_url, SESSION=session_id) == (SAID[mark], "")


def test_the_example_of_tasks_works(server_url: str) -> None:
    page = (ROOT / "docs/coordination.md").read_text(encoding="utf-8")
    assert run_block(page, "tasks", SCS_URL=server_url) == (TASKS_SAID, "")
