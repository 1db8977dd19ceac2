"""The groups of addresses by which anonymous callers are counted.

An IPv4 address is one caller. An IPv6 customer has at least a network of 64 bits, so such a network counts as
one caller.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

_OWN_BITS = 64


@lru_cache(maxsize=4096)
def address_group(address: str) -> str:
    """Returns the network under which the calls of an address count together.

    An IPv4 address counts alone, an IPv6 address as its /64 (`2001:db8::/64`). Other text, such as `unix`, is returned
    unchanged.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _OWN_BITS), strict=False))
