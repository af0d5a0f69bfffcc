"""Rates as settings have them."""

from __future__ import annotations

import pytest
from limits import parse

from shared_context_server.auth.limits import _read_rate


@pytest.mark.parametrize(
    "text", ["120000/minute", "600/minute", "5 per 2 hours", "10/second", "7 / minute", "3/MINUTE"]
)
def test_a_rate_means_what_the_package_limits_makes_of_it(text: str) -> None:
    item = parse(text)
    assert _read_rate(text) == (item.amount, item.get_expiry())
