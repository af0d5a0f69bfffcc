"""The bugs that the prover plants fit the present source."""

from __future__ import annotations

from pathlib import Path

import pytest

from prove.planted_bugs import BUGS, CHECKOUT, PATCHES, Bug, apply_patch

SOURCE = "src/shared_context_server"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_patch_of_a_planted_bug_applies_and_changes_the_program(
    bug: Bug, tmp_path: Path
) -> None:
    """If this fails, the lines of the patch were changed: write the same bug into the present ones."""
    changed = [
        line.removeprefix("+++ b/")
        for line in bug.patch.read_text().splitlines()
        if line.startswith("+++ b/")
    ]
    assert changed
    for name in changed:
        assert name.startswith(SOURCE)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((CHECKOUT / name).read_text())
    apply_patch(bug.patch, tmp_path)
    for name in changed:
        patched = (tmp_path / name).read_text()
        assert patched != (CHECKOUT / name).read_text()
        compile(patched, name, "exec")


def test_every_patch_is_one_of_the_bugs_and_says_what_it_does() -> None:
    assert sorted(PATCHES.iterdir()) == sorted(bug.patch for bug in BUGS)
    for bug in BUGS:
        assert bug.errors
        assert bug.patch.read_text().splitlines()[0].endswith(".")
