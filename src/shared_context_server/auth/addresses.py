"""Client addresses as limits count them."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

_IPV6_PREFIX_BITS = 64  # what one subscriber has of addresses: each of them would be a caller else


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """The name under which a client's address is counted: itself, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.is_loopback:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), _IPV6_PREFIX_BITS), strict=False))


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Whether only this machine has the address, or name."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


@lru_cache(maxsize=4096)
def is_within(address: str, networks: tuple[str, ...]) -> bool:
    """Whether the address is one of these, or in one of these networks."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in ipaddress.ip_network(entry, strict=False) for entry in networks)
