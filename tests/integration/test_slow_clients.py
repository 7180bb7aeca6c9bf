"""Clients that send slowly, endlessly or not at all are disconnected, and do not delay others."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic

import pytest

from reactorcide.settings import MAX_BODY_BYTES
from tests.conftest import NewService
from tests.support.client import Client
from tests.support.service import Service
from tests.support.waiting import is_readable, wait_until

MORE_THAN_THREADS = 80
HALF_A_HEAD = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_A_BODY = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
A_HUGE_CHUNK = (
    b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n300000\r\n{"
)
HALF_A_CHUNK = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"
# The second request of a connection comes with the first one, and not to its end.
AND_A_HALF = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n" + HALF_A_HEAD


@contextmanager
def dripping(service: Service, head: bytes) -> Iterator[list[socket.socket]]:
    """Yield more connections than the service has threads, each sending a byte now and then."""
    ended = threading.Event()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=10))
            for _ in range(MORE_THAN_THREADS)
        ]
        for client in clients:
            client.sendall(head)

        def drip() -> None:
            while not ended.wait(0.2):
                for client in clients:
                    try:
                        client.sendall(b"x")
                    except OSError:
                        continue

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            yield clients
        finally:
            ended.set()
            dripper.join()


def test_slow_clients_use_no_thread_and_are_disconnected(new_service: NewService) -> None:
    service = new_service(concurrency=0, request_timeout=3)
    for head in (b"", HALF_A_HEAD, HALF_A_BODY, HALF_A_CHUNK, A_HUGE_CHUNK, AND_A_HALF):
        with dripping(service, head) as clients:
            for _ in range(3):
                other = Client(service.base_url, service.admin.token)
                started = monotonic()
                assert other.post_job().status_code == 201
                assert monotonic() - started < 2, head
                other.close()
            if head == HALF_A_HEAD:
                answers = [_rest(client) for client in clients]
                assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
                assert json.loads(answers[0].partition(b"\r\n\r\n")[2])["error"] == "request_timeout"
                assert "was refused: 408 " in service.log_text()


def _rest(client: socket.socket) -> bytes:
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        # A byte was on its way when the connection was closed.
        pass
    return received


def test_stalled_client_does_not_delay_the_stop(new_service: NewService) -> None:
    service = new_service(concurrency=0)
    with socket.create_connection(("127.0.0.1", service.port)):
        started = monotonic()
        service.stop()
        assert monotonic() - started < 5


@pytest.fixture
def connection(idle_service: Service) -> Iterator[http.client.HTTPConnection]:
    """A connection on which a test frames its requests itself."""
    connection = http.client.HTTPConnection("127.0.0.1", idle_service.port, timeout=20)
    yield connection
    connection.close()


def send_job(
    connection: http.client.HTTPConnection, service: Service, description: str, *, chunk_bytes: int
) -> tuple[int, str | None]:
    """Submit a job in chunks of that size; return the status and the error, if it is one."""
    fields = {"name": "x", "source_type": "copy", "job_command": "true", "description": description}
    data = json.dumps(fields).encode()
    connection.request(
        "POST",
        "/api/v1/jobs",
        (data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)),
        {"Authorization": f"Bearer {service.admin.token}", "Content-Type": "application/json"},
        encode_chunked=True,
    )
    response = connection.getresponse()
    return response.status, json.loads(response.read()).get("error")


@pytest.mark.parametrize("chunk_bytes", [1, 100, 1 << 20])
def test_chunked_body_is_accepted(
    idle_service: Service, connection: http.client.HTTPConnection, chunk_bytes: int
) -> None:
    for _ in range(2):
        assert send_job(connection, idle_service, "d" * 500, chunk_bytes=chunk_bytes) == (201, None)


def test_chunked_body_has_the_same_limit(
    idle_service: Service, connection: http.client.HTTPConnection
) -> None:
    answer = send_job(connection, idle_service, "d" * MAX_BODY_BYTES, chunk_bytes=1 << 16)
    assert answer == (413, "payload_too_large")


def test_expect_100_continue_is_answered(idle_service: Service) -> None:
    body = b'{"name": "x", "source_type": "copy", "job_command": "true"}'
    head = (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n"
        f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {idle_service.admin.token}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", idle_service.port), timeout=20) as client:
        client.sendall(head.encode())
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 201


@pytest.mark.parametrize(
    ("path", "scopes", "length", "status"),
    [
        ("sources", None, "Content-Length: 1000000", 401),
        ("jobs", None, "Content-Length: 1000000", 401),
        ("jobs", None, "Transfer-Encoding: chunked", 401),
        ("sources", ["jobs:read"], "Content-Length: 1000000", 403),
        ("jobs", ["jobs:read"], "Content-Length: 1000000", 403),
        ("register", None, "Content-Length: 1000000", 413),
        ("nothing", None, "Content-Length: 1000000", 404),
        ("health", None, "Content-Length: 1000000", 405),
    ],
)
def test_too_long_body_is_refused_before_it_is_sent(
    idle_service: Service, path: str, scopes: list[str] | None, length: str, status: int
) -> None:
    authorization = ""
    if scopes is not None:
        token = idle_service.admin.request("POST", "tokens", json={"name": "n", "scopes": scopes})
        authorization = f"Authorization: Bearer {token.json()['token']}\r\n"
    with socket.create_connection(("127.0.0.1", idle_service.port), timeout=20) as client:
        started = monotonic()
        client.sendall(
            f"POST /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/gzip\r\n"
            f"{authorization}{length}\r\n\r\n".encode()
        )
        assert client.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
        assert monotonic() - started < 10


def test_slow_upload_is_disconnected(new_service: NewService) -> None:
    service = new_service(concurrency=0, request_timeout=1)
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        started = monotonic()
        client.sendall(
            f"POST /api/v1/sources HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/gzip\r\n"
            f"Authorization: Bearer {service.admin.token}\r\nContent-Length: 1000000\r\n\r\n".encode()
        )
        # Each byte comes in time, and 64 KiB of them do not.
        while not is_readable(client, 0.1):
            assert monotonic() - started < 10
            client.sendall(b"x")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_many_connections_at_once_are_all_answered(idle_service: Service) -> None:
    clients = [Client(idle_service.base_url, idle_service.admin.token) for _ in range(60)]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda one=client: statuses.append(one.request("GET", "tokens").status_code))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(statuses) == len(clients), 20, "all are answered")
    for thread, client in zip(threads, clients, strict=True):
        thread.join()
        client.close()
    assert set(statuses) == {200}


def test_oldest_request_is_dropped_above_the_memory_limit(idle_service: Service) -> None:
    head = HALF_A_BODY.replace(b"1000", b"2000000\r\nAuthorization: Bearer TOKEN") + b"x" * 1_900_000
    with ExitStack() as stack:
        clients = []
        for _ in range(40):
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", idle_service.port), timeout=20)
            )
            client.sendall(head.replace(b"TOKEN", (idle_service.admin.token or "").encode()))
            clients.append(client)
        assert clients[0].recv(100).startswith(b"HTTP/1.1 503 ")
        assert idle_service.admin.request("GET", "jobs").status_code == 200
        # Whoever came last has not been refused, and can finish.
        clients[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            clients[-1].recv(100)
