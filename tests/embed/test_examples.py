"""The examples run as they stand, without a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.embed.conftest import PATIENCE_S

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str) -> list[str]:
    command = [sys.executable, EXAMPLES / name]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer.stdout.splitlines()


def test_the_calculator_calculates_and_refuses_to_divide_by_zero() -> None:
    *sums, by_zero = run_example("calculator.py")
    assert sums == [
        "add(2, 3): result 5.0",
        "subtract(2, 3): result -1.0",
        "multiply(2, 3): result 6.0",
        f"divide(355, 113): result {355 / 113}",
    ]
    assert by_zero == "divide(1, 0): error Cannot divide by zero."


def test_the_embedded_agents_talk_to_each_other() -> None:
    assert run_example("embedded_agent.py") == [
        "bob reads from alice: The notes are ready for review.",
        "1. alice: The notes are ready for review.",
        "2. bob: Looks right to me.",
    ]
