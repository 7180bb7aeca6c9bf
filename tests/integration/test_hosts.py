"""The host names that are accepted without a token, as protection against DNS rebinding."""

import socket

import pytest

from tests.conftest import NewService
from tests.integration.test_http import assert_error
from tests.support.service import Service

OPEN = ("/metrics", "ready", "health", "/api/docs", "openapi.json", "/nothing", "jobs")


@pytest.fixture
def named(new_service: NewService) -> Service:
    return new_service(
        concurrency=0, public_url="https://ci.example.com/x", allowed_host="ci.internal", log_format="json"
    )


@pytest.mark.parametrize(
    "host", ["evil.example.com", "evil.example.com:8080", "localhost.evil.test", "0x7f.1", ""]
)
def test_unknown_host_name_is_refused(idle_service: Service, host: str) -> None:
    client = idle_service.anonymous()
    for path in OPEN:
        response = client.request("GET", path, headers={"Host": host})
        assert_error(response, 421, "misdirected_request")
        assert "--allowed-host" in response.json()["message"]
    bad = client.request("GET", "/metrics", headers={"Host": host, "Authorization": "Bearer nobody-has-this"})
    assert bad.status_code == 421
    # No page has a token: who has one may use whatever name leads here.
    assert idle_service.admin.request("GET", "ready", headers={"Host": host}).status_code in (200, 503)
    assert idle_service.admin.request("GET", "jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "192.0.2.7", socket.gethostname()]
)
def test_own_name_and_any_address_are_accepted(idle_service: Service, host: str) -> None:
    client = idle_service.anonymous()
    assert client.request("GET", "/metrics", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "[::1",
        "::1",
        "[::1]evil.com",
        "[evil.com]",
        "localhost:abc",
        "localhost:80@evil.com",
        "a@localhost",
        "a b",
    ],
)
def test_malformed_host_is_refused(idle_service: Service, host: str) -> None:
    for client in (idle_service.anonymous(), idle_service.admin):
        assert_error(client.request("GET", "/metrics", headers={"Host": host}), 400, "invalid_input")


def test_configured_host_names_are_accepted(named: Service) -> None:
    client = named.anonymous()
    for host, status in (
        ("ci.example.com", 200),
        ("CI.example.com.:443", 200),
        ("ci.internal:8080", 200),
        ("x.ci.internal", 421),
    ):
        assert client.request("GET", "/metrics", headers={"Host": host}).status_code == status, host


def test_wildcard_accepts_any_host_name(new_service: NewService) -> None:
    client = new_service(concurrency=0, allowed_host="*").anonymous()
    assert client.request("GET", "/metrics", headers={"Host": "whatever.test"}).status_code == 200
