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
    """Returns the address itself, for IPv6 its network (`2001:db8::/64`); a peer without an address, such as
    `unix`, as it is.
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
