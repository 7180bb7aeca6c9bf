"""The addresses that the service may connect to for its users, checked after a name is resolved."""

import ipaddress
import socket
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1", "0.0.0.0/8", "::")))
_LINK_LOCAL = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10")))
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 from which addresses of the internet are assigned (RFC 4291, section 2.4)."""
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")
"""Not public (RFC 6890); Python knows parts of it only."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""RFC 8215: for translators of an internal network."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")
"""RFC 4291, section 2.5.5.1."""


class AddressRules:
    """The addresses that may be reached for users: no loopback and link-local ones, unless allowed.

    The smallest network that contains an address decides; of two equal ones, the allowed one. With
    ``internal`` as ``False`` all addresses that are not public are refused, too, unless allowed. An IPv6
    address that contains IPv4 addresses is refused with any of these.
    """

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = (), *, internal: bool = True) -> None:
        self._rules: list[tuple[Network, str | None]] = [
            *((ipaddress.ip_network(text), None) for text in allow),
            *((ipaddress.ip_network(text), f"in {text}, which --deny-address names") for text in deny),
            *((network, "a loopback address") for network in _LOOPBACK),
            *((network, "a link-local address") for network in _LINK_LOCAL),
        ]
        self._internal = internal

    def refusal(self, address: Address) -> str | None:
        """Return a phrase that says why an address is refused; ``None`` if it is allowed."""
        return next(filter(None, map(self._refusal, [address, *_embedded(address)])), None)

    def _refusal(self, address: Address) -> str | None:
        matching = [rule for rule in self._rules if address in rule[0]]
        if not matching:
            return None if self._internal or _is_public(address) else "not a public address"
        # The first of equally long ones, because the allowed ones come first.
        return max(matching, key=lambda rule: rule[0].prefixlen)[1]


def is_loopback(address: Address) -> bool:
    """Return whether an address is a loopback address of this host."""
    return any(each in network for each in [address, *_embedded(address)] for network in _LOOPBACK)


def resolve(host: str) -> list[Address]:
    """Return the addresses of a host, the preferred one first; raises ``OSError`` if it has none.

    This may take as long as the system's resolver, mostly seconds.
    """
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(0, "it is not a host name") from error
    except socket.gaierror:
        # The system's resolver answers "no such name" if it cannot open a socket. This raises the reason.
        socket.socket(socket.AF_UNIX).close()
        raise
    return list(dict.fromkeys(ipaddress.ip_address(str(item[4][0])) for item in infos))


def _embedded(address: Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address leads to, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        # The server, and the client behind it.
        return list(address.teredo)
    is_compatible = address in _COMPATIBLE and not (address.is_loopback or address.is_unspecified)
    if is_compatible or address.ipv4_mapped is not None or address in _NAT64 or address in _LOCAL_NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return []


def _is_public(address: Address) -> bool:
    """Return whether an address is one of the internet, for one host; or the IPv4 address inside decides."""
    if isinstance(address, ipaddress.IPv6Address):
        if _embedded(address):
            return address not in _LOCAL_NAT64
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and address not in _PROTOCOLS
