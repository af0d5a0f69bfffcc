"""The blocks of docs/tutorial.md, pasted one after the other, print what stands below each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.client.conftest import API_KEY, PATIENCE_S

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
MARK = "tutorial-"
BLOCK = re.compile(rf"<!-- {MARK}(\d+): tested -->\s+```python\n(.*?)```", re.DOTALL)
SAYS = re.compile(rf"<!-- {MARK}(\d+)-says: tested -->\s+```text\n(.*?)```", re.DOTALL)


def test_the_tutorial_prints_what_it_says(server_url: str) -> None:
    blocks, says = BLOCK.findall(PAGE), SAYS.findall(PAGE)
    assert [number for number, _ in blocks] == [number for number, _ in says]
    assert len(blocks) == PAGE.count("```python\n")
    script = "".join(f"{text}print('-- {number}')\n" for number, text in blocks)
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ
        | {"SCS_URL": server_url, "SCS_API_KEY": API_KEY, "PYTHONPATH": str(ROOT / "client/src")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert answer.stderr == ""
    assert answer.stdout == "".join(f"{text}-- {number}\n" for number, text in says)
