"""Requests to other hosts: to checked addresses only, within a deadline, whatever the other side answers."""

import gzip
import ipaddress
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from time import monotonic, sleep

import pytest

from reactorcide.domain.errors import RequestFailed
from reactorcide.domain.http import HttpAnswer, HttpRequest
from reactorcide.network.addresses import Address, AddressRules
from reactorcide.network.http import HttpClient
from tests.support.certificate import make_certificate
from tests.support.http_server import Answer, answer_with, serving
from tests.support.ports import free_port
from tests.support.waiting import wait_until

LOCAL = ["127.0.0.1", "127.0.0.2"]


def client(*, timeout_s: float = 10.0, resolve: Callable[[str], list[Address]] | None = None) -> HttpClient:
    own = {} if resolve is None else {"resolve": resolve}
    return HttpClient(AddressRules(allow=LOCAL).refusal, timeout_s=timeout_s, max_answer_bytes=1000, **own)


def get(port: int, path: str = "/", *, host: str = "127.0.0.1", **options: object) -> HttpAnswer:
    request = HttpRequest(method="GET", url=f"http://{host}:{port}{path}")
    return client(**options).send(request)  # type: ignore[arg-type]  # as the test has them


def refusal(port: int, path: str = "/", **options: object) -> str:
    with pytest.raises(RequestFailed) as caught:
        get(port, path, **options)  # type: ignore[arg-type]  # as the test has them
    return str(caught.value)


def test_request_is_sent_unchanged_and_its_answer_returned() -> None:
    arrived: list[tuple[str, str, dict[str, str], bytes]] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        arrived.append((request.command, request.path, dict(request.headers), body))
        answer_with(422, {"X-Reason": "nope"}, b'{"message": "no"}')(request)

    with serving(answer) as port:
        request = HttpRequest(
            method="POST",
            url=f"http://127.0.0.1:{port}/a/b?c=d",
            headers={"Authorization": "token secret", "Content-Type": "application/json"},
            body=b'{"state": "success"}',
        )
        answered = client().send(request)
    assert (answered.status, answered.headers["x-reason"]) == (422, "nope")
    assert not answered.is_success
    assert answered.json() == {"message": "no"}
    [(command, path, headers, body)] = arrived
    assert (command, path, body) == ("POST", "/a/b?c=d", b'{"state": "success"}')
    assert headers["Authorization"] == "token secret"
    assert headers["User-Agent"].startswith("reactorcide/")
    assert "secret" not in repr(request)


def test_the_environment_does_not_redirect_requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password netrc-secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    authorizations: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        authorizations.append(request.headers["Authorization"])
        answer_with(200)(request)

    with serving(answer) as port:
        assert get(port).status == 200
    assert authorizations == [None]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_on_the_same_host_gets_the_same_request(status: int) -> None:
    arrived: list[tuple[str, str, str | None, bytes]] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        arrived.append((request.command, request.path, request.headers["Authorization"], body))
        answer_with(*((201,) if request.path == "/new" else (status, {"Location": "/new"})))(request)

    with serving(answer) as port:
        request = HttpRequest(
            method="POST", url=f"http://127.0.0.1:{port}/old", headers={"Authorization": "token x"}, body=b"1"
        )
        assert client().send(request).status == 201
    assert arrived == [("POST", path, "token x", b"1") for path in ("/old", "/new")]


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.2:{port}/",
        "http://127.0.0.1:1/",
        "//localhost:{port}/",
        "https://127.0.0.1:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/",
    ],
)
def test_a_redirect_to_another_host_is_not_followed(location: str) -> None:
    paths: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        paths.append(request.path)
        answer_with(307, {"Location": location.format(port=request.server.server_address[1])})(request)  # type: ignore[index]  # of an IPv4 socket

    with serving(answer) as port:
        assert "redirects to another host, which is not followed: " in refusal(port)
    assert paths == ["/"]


@pytest.mark.parametrize("location", ["http://[", "//[", "http://127.0.0.1:{port}:80/"])
def test_redirect_to_a_malformed_url_is_a_clear_error(location: str) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        answer_with(307, {"Location": location.format(port=request.server.server_address[1])})(request)  # type: ignore[index]  # of an IPv4 socket

    with serving(answer) as port:
        assert refusal(port) == f"http://127.0.0.1:{port} redirects to an invalid URL"


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://[", {}),
        ("http://a:x/", {}),
        ("http://", {}),
        ("http://127.0.0.1:70000/", {}),
        ("http://127.0.0.1:9/", {"Authorization": "token a\nb"}),
    ],
)
def test_impossible_request_is_a_clear_error(url: str, headers: dict[str, str]) -> None:
    request = HttpRequest(method="GET", url=url, headers=headers)
    with pytest.raises(RequestFailed, match="its URL or a header is not valid"):
        client().send(request)


def test_number_of_redirects_is_limited() -> None:
    count = iter(range(100))

    def answer(request: BaseHTTPRequestHandler) -> None:
        answer_with(302, {"Location": f"/{next(count)}"})(request)

    with serving(answer) as port:
        assert refusal(port) == f"http://127.0.0.1:{port} redirects more than 5 times"
    assert next(count) == 6


def test_see_other_is_not_followed() -> None:
    with serving(answer_with(303, {"Location": "http://169.254.169.254/"})) as port:
        assert get(port).status == 303


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("169.254.169.254", "a link-local address"),
        ("127.0.0.3", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:7f00:3", "a loopback address"),
    ],
)
def test_a_refused_address_is_not_connected_to(address: str, kind: str) -> None:
    def resolve(host: str) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address(address)]

    with serving(answer_with(200)) as port:
        problem = refusal(port, host="forge.example", resolve=resolve)
    assert problem == (
        f"cannot reach http://forge.example:{port}: {address} is {kind}; "
        f"the operator can allow it with --allow-address {address}"
    )


def test_connection_goes_to_the_checked_address() -> None:
    """Of a name that resolves to another address each time, the first one counts; and again at a redirect."""
    answers = iter(["127.0.0.1", "127.0.0.1", "169.254.169.254"])
    hosts: list[str | None] = []

    def resolve(host: str) -> list[Address]:
        return [ipaddress.ip_address(next(answers))]

    def answer(request: BaseHTTPRequestHandler) -> None:
        hosts.append(request.headers["Host"])
        answer_with(302, {"Location": "/again"})(request)

    with serving(answer) as port:
        problem = refusal(port, host="forge.example", resolve=resolve)
    assert "169.254.169.254 is a link-local address" in problem
    assert hosts == [f"forge.example:{port}"] * 2


def test_next_address_is_tried_if_one_does_not_answer() -> None:
    def resolve(host: str) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.2"), ipaddress.ip_address("127.0.0.1")]

    with serving(answer_with(200)) as port:
        assert get(port, host="forge.example", resolve=resolve).status == 200


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.4",
        "172.31.1.1",
        "192.168.1.1",
        "100.64.0.1",
        "192.0.0.1",
        "192.0.0.200",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "fd00::1",
        "fec0::1",
        "ff0e::1",
        "100::1",
        "2001:db8::1",
        "4000::1",
        # With an IPv4 address inside: mapped, compatible, NAT64, 6to4, Teredo.
        "::ffff:192.168.1.1",
        "::c0a8:101",
        "::ffff:0:c0a8:101",
        "64:ff9b::c0a8:101",
        "64:ff9b:1::c0a8:101",
        "64:ff9b:1::808:808",
        "2002:c0a8:101::",
        "2001:0:c0a8:101::",
        "2001:0:808:808::3f57:fefe",
    ],
)
def test_webhook_rules_refuse_what_is_not_public_unless_allowed(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert AddressRules(internal=False).refusal(parsed) == "not a public address"
    assert AddressRules().refusal(parsed) is None
    allowed = AddressRules(["0.0.0.0/0", "::/0"], internal=False)
    assert allowed.refusal(parsed) is None
    assert AddressRules(["0.0.0.0/0", "::/0"], [address], internal=False).refusal(parsed) is not None


def test_webhook_rules_take_public_addresses_and_what_the_operator_allows() -> None:
    rules = AddressRules(allow=["10.0.0.5", "127.0.0.2", "fec0::/16"], internal=False)
    for address, expected in {
        "10.0.0.4": "not a public address",
        "10.0.0.5": None,
        "::ffff:10.0.0.5": None,
        "127.0.0.1": "a loopback address",
        "127.0.0.2": None,
        "169.254.169.254": "a link-local address",
        "fec0::1": None,
        "0.0.0.0": "a loopback address",  # noqa: S104  # not to bind to
        "8.8.8.8": None,
        "2606:4700:4700::1111": None,
        "64:ff9b::808:808": None,
        "2002:808:808::": None,
    }.items():
        assert rules.refusal(ipaddress.ip_address(address)) == expected, address


def drip(data: bytes, times: int = 10_000) -> Answer:
    """Answer byte by byte, for much longer than anybody waits."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        for _ in range(times):
            for byte in data:
                request.wfile.write(bytes([byte]))
                sleep(0.01)

    return answer


def silent(request: BaseHTTPRequestHandler) -> None:
    with suppress(OSError):
        request.connection.recv(1)


def headers_for_ever(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    drip(b"X-A: b\r\n")(request)


def informed_for_ever(request: BaseHTTPRequestHandler) -> None:
    drip(b"HTTP/1.1 100 Continue\r\n\r\n")(request)


@pytest.mark.parametrize("answer", [silent, headers_for_ever, informed_for_ever, drip(b"H", 10_000)])
def test_deadline_covers_the_whole_answer(answer: Answer) -> None:
    with serving(answer) as port:
        started = monotonic()
        problem = refusal(port, timeout_s=0.5)
        assert monotonic() - started < 2
    assert problem == f"http://127.0.0.1:{port} did not answer within 0.5 s"


def test_deadline_covers_all_redirects() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        sleep(0.3)
        answer_with(302, {"Location": "/again"})(request)

    with serving(answer) as port:
        assert "did not answer within 0.5 s" in refusal(port, timeout_s=0.5)


def test_status_counts_if_the_body_does_not_arrive() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 201 Created\r\n\r\n")
        drip(b"x")(request)

    with serving(answer) as port:
        started = monotonic()
        assert get(port, timeout_s=0.5).status == 201
        assert monotonic() - started < 2


def test_answer_is_read_up_to_its_limit() -> None:
    sent = 0

    def answer(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += request.wfile.write(b"x" * 65_536)

    with serving(answer) as port:
        assert get(port).body == b"x" * 1000
    # What fits into the buffers of two sockets.
    assert sent < 20_000_000


def test_compressed_answer_is_not_decompressed() -> None:
    packed = gzip.compress(b"0" * 500_000)
    encodings: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        encodings.append(request.headers["Accept-Encoding"])
        answer_with(200, {"Content-Encoding": "gzip"}, packed)(request)

    with serving(answer) as port:
        assert get(port).body == packed[:1000]
    assert encodings == ["identity"]


def test_malformed_answer_is_an_error() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"\0\xff" * 50_000)

    with serving(answer) as port:
        assert refusal(port).startswith(f"cannot reach http://127.0.0.1:{port}: ")


def test_slow_resolver_does_not_delay_the_deadline() -> None:
    free = threading.Event()

    def resolve(host: str) -> list[Address]:
        free.wait(20)
        return [ipaddress.ip_address("127.0.0.1")]

    started = monotonic()
    problem = refusal(9, host="forge.example", timeout_s=0.3, resolve=resolve)
    assert monotonic() - started < 2
    assert problem == "http://forge.example:9 did not answer within 0.3 s"
    free.set()


def test_failures_are_clear_errors() -> None:
    def resolve(host: str) -> list[Address]:
        raise OSError(0, "Name or service not known")

    assert refusal(9, host="forge.example", resolve=resolve) == (
        "cannot reach http://forge.example:9: its host has no address (Name or service not known)"
    )
    port = free_port()
    assert refusal(port) == f"cannot reach http://127.0.0.1:{port}: Connection refused"


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SSLContext:
    """A server's certificate for localhost that the client trusts."""
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    return context


def test_the_certificate_is_checked_against_the_name(tls: SSLContext) -> None:
    def resolve(host: str) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.1")]

    def send(host: str) -> HttpAnswer:
        request = HttpRequest(method="GET", url=f"https://{host}:{port}/")
        return client(resolve=resolve).send(request)

    with serving(answer_with(200), tls) as port:
        assert send("localhost").status == 200
        assert send("127.0.0.1").status == 200
        with pytest.raises(RequestFailed, match="its certificate is not valid: Hostname mismatch"):
            send("forge.example")


def test_an_unknown_authority_is_refused(tls: SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with serving(answer_with(200), tls) as port:
        request = HttpRequest(method="GET", url=f"https://127.0.0.1:{port}/")
        with pytest.raises(RequestFailed, match="its certificate is not valid: self-signed certificate"):
            client().send(request)


def test_unfinished_handshake_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        request = HttpRequest(method="GET", url=f"https://127.0.0.1:{port}/")
        started = monotonic()
        with pytest.raises(RequestFailed, match=r"did not answer within 0\.4 s"):
            client(timeout_s=0.4).send(request)
        assert monotonic() - started < 2


def test_requests_leave_no_sockets_or_threads() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def watching() -> bool:
        return any(item.name == "deadline" for item in threading.enumerate())

    with serving(answer_with(200)) as port:
        sender = client(timeout_s=60)
        request = HttpRequest(method="GET", url=f"http://127.0.0.1:{port}/")
        sender.send(request)
        wait_until(lambda: not watching(), 10, "the thread of the first request ended")
        before = descriptors()
        for _ in range(50):
            sender.send(request)
        wait_until(lambda: not watching() and descriptors() <= before, 10, "all was closed")
