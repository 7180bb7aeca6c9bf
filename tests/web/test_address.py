"""From which proxies the address and the scheme of a client are believed."""

from collections.abc import Iterable

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from reactorcide.web.address import TrustedProxies

NETWORKS = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]


def application_view(remote: str, networks: list[str], **headers: str) -> tuple[str, str, list[str]]:
    """Return the address, the scheme and the forwarding fields that an application behind it gets."""
    requests: list[tuple[str, str, list[str]]] = []

    def app(environ: dict[str, object], start_response: object) -> Iterable[bytes]:
        fields = [name for name in environ if name.startswith("HTTP_X_FORWARDED")]
        requests.append((str(environ["REMOTE_ADDR"]), str(environ["wsgi.url_scheme"]), fields))
        start_response("200 OK", [])  # type: ignore[operator]  # as WSGI has it
        return [b""]

    sent = {f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in headers.items()}
    builder = EnvironBuilder(environ_overrides={"REMOTE_ADDR": remote, **sent})
    run_wsgi_app(TrustedProxies(app, networks), builder.get_environ())
    return requests[0]


@pytest.mark.parametrize(
    ("remote", "named", "address"),
    [
        ("203.0.113.1", "198.51.100.1", "203.0.113.1"),
        ("10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.7", "198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("192.0.2.8", "198.51.100.1", "192.0.2.8"),
        ("10.1.2.3", "invented, 198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "10.0.0.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.1.2.3", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("10.1.2.3", "198.51.100.1, unknown", "10.1.2.3"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.1:4711", "10.1.2.3"),
        ("2001:db8::5", "2001:db8:1::1, 198.51.100.1", "198.51.100.1"),
        ("::ffff:10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.1", "198.51.100.1", "203.0.113.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_client_address_is_derived_from_trusted_headers(remote: str, named: str, address: str) -> None:
    assert application_view(remote, NETWORKS, For=named) == (address, "http", [])


@pytest.mark.parametrize(
    ("remote", "named", "scheme"),
    [
        ("10.1.2.3", "https", "https"),
        ("203.0.113.1", "https", "http"),
        ("10.1.2.3", "http, HTTPS", "https"),
        ("10.1.2.3", "javascript", "http"),
    ],
)
def test_scheme_is_derived_from_trusted_headers(remote: str, named: str, scheme: str) -> None:
    assert application_view(remote, NETWORKS, Proto=named) == (remote, scheme, [])


def test_without_proxies_no_header_is_trusted() -> None:
    assert application_view("127.0.0.1", [], For="198.51.100.1", Proto="https") == ("127.0.0.1", "http", [])
