"""The address of a client, also behind trusted proxies."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flask import current_app, request

from reactorcide.web.api import PREFIX

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PUBLIC_URL = "REACTORCIDE_PUBLIC_URL"
LISTENS_ON = "REACTORCIDE_LISTENS_ON"
"""Keys of the application's configuration: URLs of the service."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address() -> str:
    """Return the address of the client that sent this request; behind trusted proxies, the one they name."""
    return request.remote_addr or "unknown"


def sign_in_url(base_url: str, link: str) -> str:
    """Return the address of the page that redeems a one-time link."""
    return f"{base_url}/sign-in?link={link}"


def location(path: str) -> str:
    """Return the address of a resource of the API, for the field ``Location``."""
    return f"{request.script_root}{PREFIX}{path}"


def own_url() -> str:
    """Return the URL at which the client of this request reaches the service, without a slash at its end.

    That is ``--public-url`` if it is set. Clients of the socket in the data directory name no address.
    """
    if PUBLIC_URL in current_app.config:
        return str(current_app.config[PUBLIC_URL]).rstrip("/")
    if request.remote_addr == "unix" and LISTENS_ON in current_app.config:
        return str(current_app.config[LISTENS_ON])
    return request.host_url.rstrip("/")


class PathPrefix:
    """WSGI middleware: the service is at ``prefix`` of its host, whether or not a proxy removes that."""

    def __init__(self, app: "WSGIApplication", prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        path: str = environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(self._prefix + "/"):
            environ["PATH_INFO"] = path[len(self._prefix) :] or "/"
        environ["SCRIPT_NAME"] = self._prefix
        return self._app(environ, start_response)


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
