"""The address of a client, also behind trusted proxies."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flask import request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address() -> str:
    """Return the address of the client that sent this request; behind trusted proxies, the one they name."""
    return request.remote_addr or "unknown"


class TrustedProxies:
    """WSGI middleware: trust X-Forwarded-For and X-Forwarded-Proto from ``networks`` only.

    Each proxy adds the address that it was called from to the end of ``X-Forwarded-For``, so that all which
    stands before the last address that is no trusted proxy's may be the client's invention.
    """

    def __init__(self, app: "WSGIApplication", networks: Sequence[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        # Taken out for good: nothing further in is to take them for the truth.
        named = environ.pop("HTTP_X_FORWARDED_FOR", "")
        scheme = environ.pop("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        address = _parsed(environ.get("REMOTE_ADDR", ""))
        if address is not None:
            if self._is_trusted(address) and scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
            environ["REMOTE_ADDR"] = str(self._client(address, named))
        return self._app(environ, start_response)

    def _client(self, address: _Address, named: str) -> _Address:
        """Return the last address in the chain of proxies that is no trusted proxy."""
        for text in reversed(named.split(",")):
            before = _parsed(text.strip()) if self._is_trusted(address) else None
            if before is None:
                break
            address = before
        return address

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _parsed(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket that takes both kinds of addresses shows IPv4 ones like this.
    return getattr(address, "ipv4_mapped", None) or address
