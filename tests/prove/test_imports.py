"""Each module of the prover can be imported, so that none is left behind when names change."""

from __future__ import annotations

import importlib

import pytest

from prove.planted_bugs import CHECKOUT

MODULES = sorted(
    ".".join(file.relative_to(CHECKOUT).with_suffix("").parts)
    for file in (CHECKOUT / "prove").rglob("*.py")
    if file.stem != "__init__"
)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_the_prover_can_be_imported(name: str) -> None:
    importlib.import_module(name)
