"""Check of the Host header.

A page in a browser can give a name of its own any address, this host's, too, and is then taken to be of the
same site as the service (DNS rebinding). It has no token, and the name is still its own.
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
    """Return the names that are fine; raises ``ConfigurationError`` where ``public_url`` names none."""
    machine = socket.gethostname()
    names = {"localhost", machine, machine.partition(".")[0], *allowed_hosts}
    if public_url is not None:
        try:
            parts = urlsplit(public_url)
            name = parts.hostname if parts.scheme in ("http", "https") else None
        except ValueError:
            name = None
        if not name:
            raise ConfigurationError(f"--public-url {public_url} is no URL like https://ci.example.com")
        names.add(name)
    return frozenset(name.lower().rstrip(".") for name in names)


def name_of(host: str) -> str:
    """Return the name or address in a ``Host`` field: no port, no brackets, in small letters.

    Raises ``InvalidInput`` where it is no host and port as RFC 3986 (3.2.2) has them.
    """
    match = _HOST.fullmatch(host.strip().lower())
    if match is None or (match["ipv6"] and not _is_address(match["ipv6"])):
        raise InvalidInput(
            "the Host header is no name or address with or without a port, like localhost:8080"
        )
    return match["ipv6"] or match["name"].rstrip(".")


def install(app: Flask, names: Collection[str]) -> None:
    """Answer 421 where another name is called without a good token."""
    app.before_request(partial(_check_name, names))


def _check_name(names: Collection[str]) -> Response | None:
    # HTTP/1.0 knows requests without one; browsers send it always.
    name = name_of(request.environ.get("HTTP_HOST", "localhost"))
    if name in names or _ANY in names or _is_address(name):
        return None
    with contextlib.suppress(Unauthorized):
        authenticate()
        return None
    return errors.answer(
        421,
        f"{name!r} is no name of this service; call it by its address, send a token, or have the "
        "operator allow the name: --allowed-host",
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
