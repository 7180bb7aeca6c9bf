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

    Each proxy appends its client's address to ``X-Forwarded-For``. So the client is the last address that is
    not a trusted proxy's; those before it may be forged.
    """

    def __init__(self, app: "WSGIApplication", networks: Sequence[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        # Removed, so that no other code trusts them.
        forwarded = environ.pop("HTTP_X_FORWARDED_FOR", "")
        scheme = environ.pop("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        address = _parsed(environ.get("REMOTE_ADDR", ""))
        if address is not None:
            if self._is_trusted(address) and scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
            environ["REMOTE_ADDR"] = str(self._client(address, forwarded))
        return self._app(environ, start_response)

    def _client(self, address: _Address, forwarded: str) -> _Address:
        """Return the last address in the chain that is not a trusted proxy's."""
        for text in reversed(forwarded.split(",")):
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
    # A dual-stack socket shows IPv4 addresses like this.
    return getattr(address, "ipv4_mapped", None) or address
