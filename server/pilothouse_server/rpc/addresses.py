"""Whom an address stands for where callers are counted by it.

An IPv4 address is one caller. Of IPv6 everybody has at least a network of 64 bits, so that is one caller.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

_OWN_BITS = 64


@lru_cache(maxsize=4096)
def address_group(address: str) -> str:
    """Returns the address itself, of IPv6 its network (`2001:db8::/64`); what is no address, as `unix`, as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _OWN_BITS), strict=False))
