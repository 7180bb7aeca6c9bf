"""Client networks and loopback hosts."""

import ipaddress
from functools import lru_cache

_IPV6_PREFIX_BITS = 64
"""The network that one customer usually has, with addresses at will."""


@lru_cache(4096)
def network_of(address: str) -> str:
    """Return the network that counts as one client; text that is not an address is returned unchanged."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), _IPV6_PREFIX_BITS), strict=False))
    return str(parsed)


def is_loopback(host: str) -> bool:
    """Return whether a host is ``localhost`` or a loopback address; other names are not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
