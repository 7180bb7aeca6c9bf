"""The addresses that the service may connect to for its users, checked after a name is resolved."""

import ipaddress
import socket
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1", "0.0.0.0/8", "::")))
_LINK_LOCAL = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10")))
_INTERNAL = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "fc00::/7"),
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRules:
    """The addresses that may be reached for users: no loopback and link-local ones, unless allowed.

    The smallest network that contains an address decides; of two equal ones, the allowed one. With
    ``internal`` as ``False`` the networks that are not of the internet are refused, too, unless allowed.
    """

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = (), *, internal: bool = True) -> None:
        self._rules: list[tuple[Network, str | None]] = [
            *((ipaddress.ip_network(text), None) for text in allow),
            *((ipaddress.ip_network(text), f"in {text}, which --deny-address names") for text in deny),
            *((network, "a loopback address") for network in _LOOPBACK),
            *((network, "a link-local address") for network in _LINK_LOCAL),
            *((network, "an address of an internal network") for network in (() if internal else _INTERNAL)),
        ]

    def refusal(self, address: Address) -> str | None:
        """Return a phrase that says why an address is refused; ``None`` if it is allowed."""
        address = _plain(address)
        matching = [rule for rule in self._rules if address in rule[0]]
        # The first of equally long ones, because the allowed ones come first.
        return max(matching, key=lambda rule: rule[0].prefixlen, default=(None, None))[1]


def is_loopback(address: Address) -> bool:
    """Return whether an address is a loopback address of this host."""
    address = _plain(address)
    return any(address in network for network in _LOOPBACK)


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


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address contains, if any; else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
