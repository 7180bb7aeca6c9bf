"""Check of the Host header against DNS rebinding.

The owner of a web page can let its name resolve to this host; browsers then treat page and service as one
site. But such a request has no token, and its Host header has the page's name.
"""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Collection, Iterable
from functools import partial
from urllib.parse import urlsplit

from flask import Flask, Response, request

from reactorcide.domain.errors import ConfigurationError, InvalidInput, Unauthorized
from reactorcide.web import errors
from reactorcide.web.auth import authenticate

_ANY = "*"
_HOST = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-f.]*:[0-9a-f:.]*)(?:%[0-9a-z._~-]+)?\]"
    r"|(?P<name>[0-9a-z._~!$&'()*+,;=%-]*))(?::[0-9]{0,5})?"
)


def own_names(public_url: str | None, allowed_hosts: Iterable[str]) -> frozenset[str]:
    """Return the allowed names; raises ``ConfigurationError`` if ``public_url`` has none."""
    machine = socket.gethostname()
    names = {"localhost", machine, machine.partition(".")[0], *allowed_hosts}
    if public_url is not None:
        try:
            parts = urlsplit(public_url)
            name = parts.hostname if parts.scheme in ("http", "https") else None
        except ValueError:
            name = None
        if not name:
            raise ConfigurationError(f"--public-url {public_url} is not a URL like https://ci.example.com")
        names.add(name)
    return frozenset(name.lower().rstrip(".") for name in names)


def name_of(host: str) -> str:
    """Return the name or address in a ``Host`` field, without port and brackets, in lower case.

    Raises ``InvalidInput`` unless it is a host and port by RFC 3986 (3.2.2).
    """
    match = _HOST.fullmatch(host.strip().lower())
    if match is None or (match["ipv6"] and not _is_address(match["ipv6"])):
        raise InvalidInput(
            "the Host header is not a name or address with or without a port, like localhost:8080"
        )
    return match["ipv6"] or match["name"].rstrip(".")


def install(app: Flask, names: Collection[str]) -> None:
    """Answer 421 for other names unless the request has a valid token."""
    app.before_request(partial(_check_name, names))


def _check_name(names: Collection[str]) -> Response | None:
    # Requests of HTTP/1.0 may have none; browsers always send it.
    name = name_of(request.environ.get("HTTP_HOST", "localhost"))
    if name in names or _ANY in names or _is_address(name):
        return None
    with contextlib.suppress(Unauthorized):
        authenticate()
        return None
    return errors.answer(
        421,
        f"{name!r} is not a name of this service; use its address, send a token, or have the "
        "operator allow the name: --allowed-host",
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
