"""What every answer says about its use, and whom the service believes."""

import json
import socket
import uuid
from collections.abc import Iterator

import docker
import pytest

from reactorcide import __version__
from tests.conftest import NewService, ended_cleanly
from tests.support.client import Client
from tests.support.image import Images
from tests.support.service import Service

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
SITE = "https://ci.example.com"


@pytest.fixture(scope="module")
def behind_a_proxy(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    """A service that this host is a trusted proxy of, and that a site may use."""
    service = Service(
        tmp_path_factory.mktemp("proxied"),
        images.default,
        concurrency=0,
        log_format="json",
        host="0.0.0.0",  # noqa: S104  # no warning is to come of it
        trusted_proxy="127.0.0.0/8",
        cors_origin=SITE,
    )
    yield from ended_cleanly(service.start(), engine)


def logged_address(service: Service, forwarded_for: str | None) -> str:
    """Return the address that is logged for a request with this header."""
    mine = f"test-{uuid.uuid4()}"
    headers = {"X-Request-ID": mine} | ({} if forwarded_for is None else {"X-Forwarded-For": forwarded_for})
    assert service.admin.request("GET", "jobs", headers=headers).status_code == 200
    [line] = [json.loads(line) for line in service.log_text().splitlines() if mine in line]
    return str(line["address"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "health", 200),
        ("GET", "/metrics", 200),
        ("GET", "jobs", 200),
        ("POST", "jobs", 415),
        ("GET", "/nowhere", 404),
        ("PATCH", "jobs", 405),
        ("GET", "jobs/{job_id}/logs", 200),
    ],
)
def test_every_answer_has_restrictive_headers(idle: Client, method: str, path: str, status: int) -> None:
    response = idle.request(method, path.format(**idle.submit()))
    assert response.status_code == status
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
    assert "Set-Cookie" not in response.headers


def test_artifact_is_not_rendered_as_a_page(api: Client) -> None:
    job = api.run("echo '<script>alert(1)</script>' >/job/artifacts/index.html")
    headers = api.request("GET", f"jobs/{job['job_id']}/artifacts/index.html").headers
    assert headers["Content-Disposition"].startswith("attachment")
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_answers_do_not_name_the_version(idle: Client) -> None:
    for response in (idle.request("GET", "jobs"), idle.request("GET", "/nowhere")):
        assert not any(character.isdigit() for character in response.headers["Server"])
        assert "X-Powered-By" not in response.headers
    for path in ("/metrics", "ready", "jobs", "queues", "workers", "/nowhere", "/api/docs"):
        assert __version__ not in idle.request("GET", path).text


@pytest.mark.parametrize("origin", [SITE, "null", "http://localhost"])
def test_cross_origin_requests_are_refused_by_default(idle: Client, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        answered = idle.request(method, "jobs", headers=headers).headers
        assert not any(name.lower().startswith("access-control") for name in answered)


def test_configured_origin_is_allowed(behind_a_proxy: Service) -> None:
    headers = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    preflight = behind_a_proxy.anonymous().request("OPTIONS", "jobs", headers=headers)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == SITE
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    answered = behind_a_proxy.admin.request("GET", "jobs", headers={"Origin": SITE}).headers
    assert (answered["Access-Control-Allow-Origin"], answered["Vary"]) == (SITE, "Origin")
    # The token is a header, never a cookie: there is nothing that a browser would add by itself.
    assert "Access-Control-Allow-Credentials" not in answered


@pytest.mark.parametrize("origin", ["https://evil.example.com", f"{SITE}.evil.test", "null", "*"])
def test_other_origin_is_refused(behind_a_proxy: Service, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        answered = behind_a_proxy.admin.request(method, "jobs", headers=headers).headers
        assert "Access-Control-Allow-Origin" not in answered
        assert answered["Vary"] == "Origin"


def test_forwarded_headers_of_clients_are_ignored(idle_service: Service) -> None:
    assert logged_address(idle_service, "203.0.113.9") == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded_for", "address"),
    [
        (None, "127.0.0.1"),
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 127.0.0.7", "203.0.113.9"),
        ("203.0.113.9, nonsense", "127.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("127.0.0.5", "127.0.0.5"),
    ],
)
def test_forwarded_headers_of_a_trusted_proxy_are_used(
    behind_a_proxy: Service, forwarded_for: str | None, address: str
) -> None:
    assert logged_address(behind_a_proxy, forwarded_for) == address


def warned(service: Service) -> bool:
    return "without TLS" in service.log_text()


def test_listening_beyond_loopback_without_tls_logs_a_warning(
    idle_service: Service, behind_a_proxy: Service, new_service: NewService
) -> None:
    assert not warned(idle_service)
    assert not warned(behind_a_proxy)
    assert warned(new_service(host="0.0.0.0", concurrency=0))  # noqa: S104  # the point of it


def test_malformed_http_gets_the_common_error_shape(idle_service: Service) -> None:
    with socket.create_connection(("127.0.0.1", idle_service.port), timeout=10) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 400 ")
    assert HEADERS.items() <= dict(line.split(": ") for line in head.split("\r\n")[1:]).items()
    error = json.loads(body)
    assert (error["error"], "nonsense" in error["message"]) == ("invalid_input", True)
