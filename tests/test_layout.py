"""What the tree of the sources promises: nothing in it is left over."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest

ROOT = "shared_context_server"
CHECKOUT = Path(__file__).parent.parent
NAMING = (
    "Makefile",
    "pyproject.toml",
    "docs/starting.md",
    f"src/{ROOT}/cli/__init__.py",
    f"src/{ROOT}/cli/workers.py",
    f"src/{ROOT}/services/search_process.py",
)
"""Files that name modules which are started, or imported, by their names."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(ROOT)


def test_every_module_is_used(graph: grimp.ImportGraph) -> None:
    """It is imported by another one, or named where programs and commands are."""
    naming = "\n".join((CHECKOUT / name).read_text() for name in NAMING)
    unused = set()
    for module in graph.modules:
        short_name = module.rpartition(".")[2]
        is_package = bool(graph.find_children(module))
        is_named = module in naming or f'"{short_name}:' in naming or short_name == "__main__"
        if not (is_package or is_named or graph.find_modules_that_directly_import(module)):
            unused.add(module)
    assert unused == set()
