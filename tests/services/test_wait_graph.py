"""Circles among instances that wait for each other."""

from __future__ import annotations

import pytest

from shared_context_server.services.wait_graph import Thread, find_circles


def graph(edges: str) -> dict[Thread, Thread]:
    return {Thread(a, ""): Thread(b, "") for a, b in edges.split()}


@pytest.mark.parametrize(
    "edges, circles",
    [
        ("", []),
        ("ab bc", []),
        ("ab ba", ["ab"]),
        ("xa ab bc ca", ["abc"]),
        ("ab ba xy yx za", ["ab", "xy"]),
        ("aa", ["a"]),
        ("ax bx", []),
    ],
)
def test_a_circle_is_found_once_and_without_what_leads_to_it(
    edges: str, circles: list[str]
) -> None:
    found = find_circles(graph(edges))
    assert [[thread.agent_id for thread in circle] for circle in found] == [
        list(circle) for circle in circles
    ]


def test_a_long_chain_takes_linear_time() -> None:
    threads = [Thread(str(number), "") for number in range(100_000)]
    chain = dict(zip(threads, [*threads[1:], threads[0]], strict=True))
    (circle,) = find_circles(chain)
    assert len(circle) == len(threads)
