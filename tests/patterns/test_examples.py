"""The patterns run as they stand, and the page of the examples shows what they print.

The examples that need no server are run by tests/embed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.conftest import PATIENCE_S
from tests.patterns.conftest import ROOT, client_environment

EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")
PATTERNS = sorted(path.name for path in (EXAMPLES / "patterns").glob("*.py"))


def run_example(name: str, url: str, directory: Path) -> str:
    answer = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=directory,
        env=client_environment(url),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout


def shown_output(name: str) -> str:
    """What the page says that the example prints."""
    found = re.search(rf"<!-- {re.escape(name)}: tested -->\s+```text\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, f"no output of {name} on the page"
    return found[1]


def what_never_differs(output: str) -> list[str]:
    """The lines without what differs from run to run: ids, their order, and who was faster."""
    return sorted(
        re.sub(
            r"task \d+|by (ann|ben|cleo)\b|^(ann|ben|cleo)", "…", output, flags=re.M
        ).splitlines()
    )


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_prints_what_its_page_shows(name: str, server_url: str, tmp_path: Path) -> None:
    output = run_example(f"patterns/{name}", server_url, tmp_path)
    assert what_never_differs(output) == what_never_differs(shown_output(f"patterns/{name}"))


def test_every_example_is_on_the_page() -> None:
    scripts = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")}
    assert set(re.findall(r"<!-- (\S+): ", PAGE)) == scripts


def test_the_variants_with_a_model_are_python() -> None:
    variants = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(variants) == len(PATTERNS)
    for variant in variants:
        assert "async def decide(" in variant
        compile(variant, "README.md", "exec")
