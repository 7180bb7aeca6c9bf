"""The loop and its connections: the limits of a client, and its answers."""

import contextlib
import gc
import http.client
import os
import re
import resource
import socket
import ssl
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from reactorcide.domain.errors import InvalidInput
from reactorcide.server import connection, front, pace, transport
from reactorcide.server.exchange import Exchange
from reactorcide.server.shares import Pool, Share
from reactorcide.server.tls import Certificate
from tests.server.conftest import Serve, Served, read_all
from tests.support.certificate import make_certificate
from tests.support.waiting import is_readable, wait_until

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
LAST_GET = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
MORE_THAN_THREADS = 20
UI = "https://ui.example.com"


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with what was sent."""
    if environ.get("reactorcide.asks"):
        environ["reactorcide.max_body_bytes"] = 1 << 20
        start_response("100 Continue", [])
        return []
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def is_served(served: Served, source: str = "127.0.0.2", within_s: float = 1.0) -> bool:
    """Tell whether somebody else is answered soon."""
    start_s = monotonic()
    with served.connect(source) as client:
        client.sendall(GET)
        return client.recv(100).startswith(b"HTTP/1.1 200 ") and monotonic() - start_s < within_s


def wait_for_a_piece(served: Served) -> None:
    """Wait until a part of a request has arrived."""
    wait_until(
        lambda: any(one._has_partial_request() for one in served.front._all()), 5, "the first piece came"
    )


def test_client_that_does_not_close_delays_nobody(serve: Serve) -> None:
    served = serve(hello)
    clients = [served.connect() for _ in range(100)]
    for client in clients:
        client.sendall(LAST_GET)
    for client in clients:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    for _ in range(5):
        assert is_served(served, within_s=0.2)
    # And they are closed, although they never close.
    wait_until(lambda: served.front.is_done, 5, "nobody is left")
    for client in clients:
        client.close()


def large(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with 64 MiB, but to one address with little."""
    start_response("200 OK", [])
    return iter([b"x" * 65536] * (1 if environ["REMOTE_ADDR"] == "127.0.0.2" else 1024))


def test_clients_that_read_nothing_use_no_thread_and_bounded_memory(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_TAKE_S", 1)
    served = serve(large)
    clients = [served.connect(receive_bytes=2048) for _ in range(MORE_THAN_THREADS)]
    start_s = monotonic()
    for client in clients:
        client.sendall(GET * 6)
    assert is_served(served)
    assert served.front.held_bytes < MORE_THAN_THREADS * (256 << 10)
    wait_until(lambda: served.front.is_done, 10, "they are cut off")
    assert 0.9 < monotonic() - start_s < 5
    assert served.front.held_bytes == 0
    for client in clients:
        client.close()


def test_a_slow_client_gets_all_of_a_large_answer(serve: Serve) -> None:
    served = serve(large)
    with served.connect(receive_bytes=4096) as client:
        client.sendall(GET.replace(b"1.1", b"1.0"))
        wait_until(lambda: served.front.held_bytes > 0, 5, "it waits for the client")
        assert len(read_all(client).partition(b"\r\n\r\n")[2]) == 64 << 20


def test_too_slow_reader_is_disconnected(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it never stalls: all of it has a deadline that follows from the size."""
    monkeypatch.setattr(transport, "_TAKE_S", 1)
    monkeypatch.setattr(pace, "MIN_BYTES_PER_S", 4 << 20)
    served = serve(large)
    for bytes_per_s, is_cut_off in ((1 << 20, True), (24 << 20, False)):
        with served.connect(receive_bytes=64 << 10) as client:
            client.sendall(LAST_GET)
            start_s, received_bytes = monotonic(), 0
            with pytest.raises(ConnectionResetError) if is_cut_off else contextlib.nullcontext():
                while data := client.recv(64 << 10):
                    received_bytes += len(data)
                    # It takes what has come by then, and no more.
                    sleep(max(0, start_s + received_bytes / bytes_per_s - monotonic()))
        assert (received_bytes < 64 << 20) is is_cut_off
        if is_cut_off:
            assert monotonic() - start_s < 1 + received_bytes / (4 << 20) + front._SWEEP_S + 2


def test_unread_data_does_not_stay_in_the_kernel_after_close(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "_UNTAKEN_S", 3)

    def fits(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer with what the system takes at once, although the client does not."""
        start_response("200 OK", [])
        return [b"x" * 100_000]

    served = serve(fits)

    def unsent() -> list[str]:
        """Return the connections of the service that wait for the client to take the rest."""
        lines = Path("/proc/net/tcp").read_text().splitlines()
        pattern = re.compile(rf"\s*\d+: \w+:{served.port:04X} \S+ 04 ")
        return [line for line in lines if pattern.match(line)]

    with served.connect(receive_bytes=2048) as client:
        client.sendall(LAST_GET)
        wait_until(lambda: bool(unsent()), 10, "all is said")
        wait_until(lambda: served.front.is_done and not unsent(), 20, "the system has forgotten it")


def test_slowly_generated_answer_is_not_disconnected(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_TAKE_S", 0.1)

    def following(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        for _ in range(8):
            yield b"event\n"
            sleep(front._SWEEP_S / 2)

    with serve(following).connect() as client:
        client.sendall(LAST_GET)
        assert read_all(client).count(b"event") == 8


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("breaks_off", ["application", "client takes nothing", "service stops"])
def test_broken_answer_is_an_error_for_http_1_0(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_tls: bool, breaks_off: str
) -> None:
    """There are no chunks, so that a close alone would look like its end."""
    monkeypatch.setattr(transport, "_TAKE_S", 1 if breaks_off == "client takes nothing" else 30)
    answering = threading.Event()

    def endless(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"half"
        answering.set()
        if breaks_off == "application":
            raise RuntimeError("it breaks")
        while True:
            yield b"x" * 65536

    pair = make_certificate(tmp_path)
    served = serve(endless, certificate=Certificate(pair.cert, pair.key) if is_tls else None)
    client = served.connect()
    if is_tls:
        # By default Python takes every end of a connection for the end of TLS.
        client = ssl.create_default_context(cafile=str(pair.cert)).wrap_socket(
            client, server_hostname="localhost", suppress_ragged_eofs=False
        )
    client.sendall(GET.replace(b"1.1", b"1.0"))
    answer = http.client.HTTPResponse(client)
    answer.begin()
    assert answer.read(4) == b"half"
    assert answering.wait(10)
    if breaks_off == "service stops":
        wait_until(lambda: served.front.held_bytes > 0, 10, "it waits for the client")
        served.stop()
    elif breaks_off == "client takes nothing":
        wait_until(lambda: served.front.is_done, 10, "it is cut off")
    with pytest.raises(ssl.SSLEOFError if is_tls else ConnectionResetError):
        answer.read()
    client.close()


def test_total_buffered_memory_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_MAX_HELD_BYTES", 1 << 20)
    served = serve(large)
    clients = [served.connect(receive_bytes=2048) for _ in range(100)]
    for client in clients:
        client.sendall(GET)
    assert is_served(served)
    wait_until(lambda: 0 < served.front.held_bytes <= 1 << 20, 5, "the oldest are given up")
    for client in clients:
        client.close()


def test_too_many_clients_drop_the_oldest_of_the_largest_share(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "_MAX_CONNECTIONS", 20)
    served = serve(hello)
    other = served.connect("127.0.0.2")
    other.sendall(GET[:20])
    clients = [served.connect() for _ in range(40)]
    for client in clients:
        # The first ones may be closed by now.
        with contextlib.suppress(ConnectionError):
            client.sendall(GET[:20])
    wait_until(lambda: read_all_or_reset(clients[19]) is not None, 5, "the oldest goes")
    for client in (other, clients[-1]):
        client.sendall(GET[20:])
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    for client in (other, *clients):
        client.close()


def test_open_file_limit_bounds_the_clients(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "files_for_clients", lambda: 40)
    served = serve(hello)
    clients = [served.connect(f"127.0.0.{10 + number}") for number in range(30)]
    for client in clients:
        with contextlib.suppress(ConnectionError):
            client.sendall(GET[:20])
    # Each has an address of its own, and takes two.
    for client in clients[:10]:
        assert read_all_or_reset(client) is not None
    for client in clients[10:]:
        client.sendall(GET[20:])
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    for client in clients:
        client.close()


@pytest.mark.parametrize(("limit", "for_clients"), [(4096, 3584), (1024, 512), (256, 128)])
def test_some_descriptors_are_reserved_for_the_service(
    monkeypatch: pytest.MonkeyPatch, limit: int, for_clients: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert front.files_for_clients() == for_clients


@contextlib.contextmanager
def no_free_descriptors() -> Iterator[None]:
    """Use up all descriptors that this process may open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[0] + 64, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                files.append(os.dup(files[0]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in files:
            os.close(file)


def test_unacceptable_client_does_not_spin_the_loop(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve(hello)
    turns = Turns(served.front)
    with socket.socket() as client:
        client.settimeout(10)
        with no_free_descriptors():
            client.connect(("127.0.0.1", served.port))
            client.sendall(GET)
            wait_until(lambda: bool(caplog.messages), 5, "it is logged")
            before, start_s = turns.number, monotonic()
            wait_until(lambda: monotonic() > start_s + 1, 5, "a second is over")
            # It waits for 0.05 s each time where nothing happens.
            assert turns.number - before < 50
            assert caplog.messages == ["connections cannot be accepted: Too many open files"]
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_lack_of_memory_for_a_client_ends_that_client_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(hello)

    def fail(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(front, "Connection", fail)
        with served.connect("127.0.0.2") as client:
            assert read_all(client) == b""
    # The client is closed before that.
    wait_until(lambda: bool(caplog.messages), 5, "it is logged")
    assert caplog.messages == ["connections cannot be accepted: Cannot allocate memory"]
    assert is_served(served)


def test_a_service_stops_while_it_accepts_nobody(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve(hello)
    with socket.socket() as client, no_free_descriptors():
        client.connect(("127.0.0.1", served.port))
        wait_until(lambda: bool(caplog.messages), 5, "it is logged")
        served.stop()
    assert served.front.is_done


class Turns:
    """Counts the turns of a loop."""

    def __init__(self, loop: front.Front) -> None:
        self.number = 0
        self._turn = loop.turn
        loop.turn = self  # type: ignore[method-assign]  # the same call, counted

    def __call__(self, timeout_s: float) -> None:
        """Count one, and do it."""
        self.number += 1
        self._turn(timeout_s)


def read_all_or_reset(client: socket.socket) -> bytes:
    """Return what comes until the other side closes, or breaks off."""
    try:
        return read_all(client)
    except ConnectionResetError:
        return b""


def test_application_decides_before_a_body_is_read(serve: Serve) -> None:
    paths: list[str] = []

    def refusing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        paths.append(environ["PATH_INFO"])
        assert environ["REMOTE_ADDR"] == "127.0.0.2" or environ["reactorcide.asks"]
        start_response("401 Unauthorized" if environ["REMOTE_ADDR"] == "127.0.0.1" else "200 OK", [])
        return [b"no"]

    served = serve(refusing)
    clients = [served.connect() for _ in range(MORE_THAN_THREADS)]
    for client in clients:
        client.sendall(POST + b"Content-Length: 1000000\r\n\r\nx")
    for client in clients:
        answer = client.recv(4096)
        assert (status_of(answer), b"connection: close" in answer.lower()) == (401, True)
    assert is_served(served, within_s=0.2)
    assert len(paths) == MORE_THAN_THREADS + 1
    for client in clients:
        client.close()


def test_refused_client_is_drained_for_a_bounded_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_DRAIN_S", 1)

    def refusing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("401 Unauthorized", [])
        return [b"no"]

    served = serve(refusing)
    with served.connect() as client:
        client.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
        # More than fits on the way: it is read.
        client.sendall(b"x" * (30 << 20))
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")
        start_s = monotonic()

        def is_closed() -> bool:
            try:
                client.sendall(b"x")
            except ConnectionError:
                return True
            return False

        wait_until(is_closed, 10, "it is cut off although it goes on sending")
        assert monotonic() - start_s < 4


def test_refused_client_is_drained_up_to_a_size(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MAX_DRAINED_BYTES", 1 << 20)

    def refusing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("401 Unauthorized", [])
        return [b"no"]

    served = serve(refusing)
    with served.connect() as client:
        client.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")

        def send() -> None:
            for _ in range(64):
                client.sendall(b"x" * (1 << 20))

        with pytest.raises(ConnectionError):
            send()


def test_the_refused_clients_of_one_address_are_drained_a_hundred_at_a_time(serve: Serve) -> None:
    def refusing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("401 Unauthorized", [])
        return [b"no"]

    served = serve(refusing)
    clients = [served.connect() for _ in range(140)]
    for client in clients:
        client.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")
    # Long before the deadline of draining, those who were answered first are closed.
    wait_until(lambda: len(served.front._all()) <= 100, 5, "some are closed")
    with pytest.raises(ConnectionError):
        clients[0].sendall(b"x" * (8 << 20))
    clients[-1].sendall(b"x" * (1 << 20))
    for client in clients:
        client.close()


def test_a_closed_connection_leaves_no_garbage(serve: Serve) -> None:
    served = serve(hello)
    with served.connect() as client:
        client.sendall(GET[:20])
        wait_for_a_piece(served)
        held = [weakref.ref(one) for one in served.front._all()]
        gc.disable()
        try:
            client.close()
            wait_until(lambda: all(one() is None for one in held), 5, "its memory is free")
        finally:
            gc.enable()


def test_client_with_enough_buffered_requests_is_not_read(serve: Serve) -> None:
    goes_on = threading.Event()

    def slow(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REMOTE_ADDR"] == "127.0.0.1":
            goes_on.wait(20)
        start_response("200 OK", [("Content-Length", "1")])
        return [b"x"]

    served = serve(slow, max_threads=12, max_short=12)
    clients = [served.connect() for _ in range(100)]
    # New clients have had their turn by now, so that only the share counts.
    wait_until(lambda: len(served.front._all()) == len(clients), 10, "all are connected")
    share = served.front._all()[0].share
    for client in clients:
        client.sendall(GET)
    wait_until(lambda: share.is_busy, 10, "enough is on its way")
    for _ in range(20):
        assert is_served(served)
    assert len(share.waiting) + share.running == 32
    goes_on.set()
    for client in clients:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        client.close()


def test_permitted_body_has_its_limit(serve: Serve) -> None:
    served = serve(hello)
    with served.connect() as client:
        client.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        reader = http.client.HTTPResponse(client)
        reader.begin()
        assert (reader.status, len(reader.read())) == (200, 1_000_000)
        client.sendall(POST + b"Content-Length: 2000000\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
    with served.connect() as client:
        client.sendall(
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"80000\r\n" + b"x" * 0x80000 + b"\r\n") * 3
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_average_chunk_size_has_a_minimum(serve: Serve) -> None:
    served = serve(hello)
    for chunks, status in ((1000, 200), (5000, 400)):
        with served.connect() as client:
            client.sendall(
                POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"
            )
            assert status_of(client.recv(4096)) == status


def test_a_body_is_permitted_after_the_client_has_ended_its_stream(serve: Serve) -> None:
    served = serve(hello)
    with served.connect() as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(b"\r\n\r\nabcd")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\x1b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\0\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (POST + b"Content-Length: -1\r\n\r\nx", 400),
        (POST + b"Transfer-Encoding: br\r\n\r\nx", 400),
        (POST + b"Transfer-Encoding: chunked, br\r\n\r\nx", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 40 + b"1\r\nx", 400),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 100_000, 431),
    ],
)
def test_malformed_request_is_answered_as_json(serve: Serve, sent: bytes, status: int) -> None:
    served = serve(hello)
    with served.connect() as client:
        client.sendall(sent)
        answer = client.recv(4096)
        assert (status_of(answer), b"\r\nContent-Type: application/json\r\n" in answer) == (status, True)
        assert (b'{"error": "header_too_large"' if status == 431 else b'{"error": "invalid_input"') in answer
    assert is_served(served)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_body_lines_are_not_header_fields(serve: Serve, line_end: bytes, cut: int) -> None:
    served = serve(hello)
    head = line_end.join([b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 300", b"", b""])
    with served.connect() as client:
        if cut:
            client.sendall(head[:-cut])
            wait_for_a_piece(served)
        client.sendall(head[len(head) - cut if cut else 0 :] + b"\n" * 300)
        assert status_of(client.recv(4096)) == 200


def test_header_fields_in_pieces_are_counted(serve: Serve) -> None:
    served = serve(hello)
    with served.connect() as client:
        client.sendall(GET[:-2] + b"A: b\r\n" * 60)
        wait_for_a_piece(served)
        client.sendall(b"A: b\r\n" * 60)
        assert status_of(client.recv(4096)) == 431


@pytest.mark.parametrize("between", [b"\r\n", b"\r\n\r\n", b"\n"])
def test_empty_lines_between_requests_are_ignored(serve: Serve, between: bytes) -> None:
    served = serve(hello)
    body = POST + b"Content-Length: 3\r\n\r\nabc"
    with served.connect() as client:
        client.sendall(between.join([b"", body, GET, body, LAST_GET, b""]))
        answers = read_all(client)
    assert (answers.count(b"HTTP/1.1 200 "), answers.count(b"abc")) == (4, 2)


def test_pipelined_request_is_answered_after_a_long_answer(serve: Serve) -> None:
    def until_it_waits(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/first":
            while not served.front.held_bytes:
                yield b"x" * 1024

    served = serve(until_it_waits)
    with served.connect(receive_bytes=4096) as client:
        client.sendall(GET.replace(b"/ ", b"/first ", 1) + LAST_GET)
        wait_until(
            lambda: any(one._answer.is_complete for one in served.front._all()),
            10,
            "the loop has to send the end",
        )
        assert read_all(client).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/9.9\r\n", 400),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n", 414),
        (POST + b"Content-Length: 2000000\r\n", 413),
        (POST + b"Content-Length: 2\r\n", 408),
        (GET[:-2] + b"A: b\r\n" * 200, 431),
    ],
)
@pytest.mark.parametrize("origin", [UI, "https://evil.example.com"])
def test_refusal_has_cors_headers(serve: Serve, sent: bytes, status: int, origin: str) -> None:
    served = serve(hello, cors_origins=[UI], request_timeout_s=1)
    line, _, rest = sent.partition(b"\r\n")
    with served.connect() as client:
        client.sendall(b"%b\r\nOrigin: %b\r\n%b\r\n" % (line, origin.encode(), rest))
        answer = http.client.HTTPResponse(client)
        answer.begin()
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == (UI if origin == UI else None)
    assert (answer.headers["Vary"], len(answer.headers.get_all("Date", []))) == ("Origin", 1)


def test_answer_has_one_date_header(serve: Serve) -> None:
    date = "Thu, 01 Jan 2026 00:00:00 GMT"

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Date", date), ("Content-Length", "0")])
        return []

    with serve(application).connect() as client:
        client.sendall(GET)
        answer = http.client.HTTPResponse(client)
        answer.begin()
    assert answer.headers.get_all("Date") == [date]


def test_pipelined_requests_are_answered(serve: Serve) -> None:
    served = serve(hello)
    body = POST + b"Content-Length: 3\r\n\r\nabc"
    with served.connect() as client:
        client.sendall(b"\r\n" + GET + body * 3 + LAST_GET)
        answers = read_all(client)
    assert (answers.count(b"HTTP/1.1 200 "), answers.count(b"abc")) == (5, 3)


def test_incomplete_pipelined_request_times_out(serve: Serve) -> None:
    served = serve(hello, request_timeout_s=1)
    with served.connect() as client:
        client.sendall(GET + GET[:20])
        answers = read_all(client)
    assert [status_of(part) for part in answers.split(b"HTTP/1.1")[1:]] == [200, 408]


def streaming(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Read a body while it comes, and tell its length."""
    if environ.get("reactorcide.asks"):
        environ["reactorcide.max_body_bytes"] = None
        start_response("100 Continue", [])
        return []
    environ["reactorcide.takes_long"]()
    total, message = 0, ""
    try:
        while data := environ["wsgi.input"].read(1 << 18):
            total += len(data)
    except InvalidInput as exc:
        message = str(exc)
    start_response("200 OK", [])
    return [f"{total} {message}".encode()]


def test_body_is_streamed(serve: Serve) -> None:
    served = serve(streaming, request_timeout_s=1)
    with served.connect() as client:
        client.sendall(POST + b"Content-Length: 30000000\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"x" * 30_000_000)
        assert b"30000000 " in client.recv(4096)
    assert served.front.held_bytes < 1 << 20
    with served.connect() as client:
        client.sendall(POST + b"Content-Length: 30000000\r\n\r\n" + b"x" * 100)
        assert b"did not arrive in time" in read_all(client)
    with served.connect() as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n")
        assert b"illegal chunk header" in client.recv(4096)


def test_too_slow_body_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although each piece comes in time."""
    monkeypatch.setattr(pace, "MIN_BYTES_PER_S", 1 << 20)
    served = serve(streaming, request_timeout_s=1)
    piece = b"x" * (64 << 10)
    for bytes_per_s, is_refused in ((256 << 10, True), (4 << 20, False)):
        with served.connect() as client:
            client.sendall(POST + b"Content-Length: %d\r\n\r\n" % (160 * len(piece)))
            start_s, sent_bytes = monotonic(), 0
            for _ in range(160):
                client.sendall(piece)
                sent_bytes += len(piece)
                sleep(max(0, start_s + sent_bytes / bytes_per_s - monotonic()))
                if is_readable(client, 0):
                    break
            assert (b"did not arrive in time" in client.recv(4096)) is is_refused
        assert (sent_bytes < 160 * len(piece)) is is_refused


def test_addresses_have_separate_shares_of_threads(serve: Serve) -> None:
    """However many requests of one address wait for a thread, those of another have their turn next."""
    working = threading.Semaphore(0)

    def slow(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REMOTE_ADDR"] == "127.0.0.1":
            working.acquire(timeout=10)
        start_response("200 OK", [])
        return [b"x"]

    served = serve(slow, max_threads=12, max_short=12)
    clients = [served.connect() for _ in range(100)]
    for client in clients:
        client.sendall(GET)
    assert is_served(served)
    working.release(200)
    for client in clients:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        client.close()


def test_waiting_requests_use_no_thread_of_others(serve: Serve) -> None:
    ended = threading.Event()

    def waiting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        if environ["REMOTE_ADDR"] == "127.0.0.1":
            environ["reactorcide.takes_long"]()
            yield b""
            ended.wait(10)
        yield b"x"

    served = serve(waiting, max_threads=30, max_short=2)
    clients = [served.connect() for _ in range(20)]
    for client in clients:
        client.sendall(GET)
    for client in clients:
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert is_served(served)
    ended.set()
    for client in clients:
        client.close()


def test_broken_answer_does_not_look_complete(serve: Serve) -> None:
    is_closed = threading.Event()

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            yield b"half"
            raise ConnectionResetError("it stops")

        def close(self) -> None:
            is_closed.set()

    def breaking(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Chunks()

    connection = http.client.HTTPConnection("127.0.0.1", serve(breaking).port, timeout=10)
    connection.request("GET", "/")
    with pytest.raises(ConnectionResetError):
        connection.getresponse().read()
    connection.close()
    assert is_closed.wait(5)


def test_half_closed_client_still_gets_its_answer(serve: Serve) -> None:
    has_shut = threading.Event()

    def following(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"begun\n"
        has_shut.wait(10)
        for _ in range(5):
            yield b"gone\n" if environ["reactorcide.client_has_closed"]() else b"there\n"

    with serve(following).connect() as client:
        client.sendall(GET)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.readline() == b"begun\n"
        client.shutdown(socket.SHUT_WR)
        has_shut.set()
        assert answer.read() == b"there\n" * 5


def test_closed_connection_is_detected_without_traffic(serve: Serve) -> None:
    noticed = threading.Event()

    def following(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"begun\n"
        with contextlib.suppress(ConnectionError):
            wait_until(environ["reactorcide.client_has_closed"], 10, "the client has gone")
        noticed.set()

    with serve(following).connect() as client:
        client.sendall(GET)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.readline() == b"begun\n"
        answer.close()
    assert noticed.wait(5)


def test_an_answer_continues_after_its_thread_has_returned(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(large)
    run = Exchange._run

    def leave_late(exchange: Exchange) -> bool:
        is_over = run(exchange)
        wait_until(lambda: served.front.held_bytes == 0, 10, "the client has taken all there is")
        return is_over

    monkeypatch.setattr(Exchange, "_run", leave_late)
    with served.connect() as client:
        client.sendall(GET.replace(b"1.1", b"1.0"))
        wait_until(lambda: served.front.held_bytes > 0, 5, "it waits for the client")
        assert len(read_all(client).partition(b"\r\n\r\n")[2]) == 64 << 20


def test_exiting_request_loses_no_thread(serve: Serve) -> None:
    def exiting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REMOTE_ADDR"] == "127.0.0.1":
            raise SystemExit
        return hello(environ, start_response)

    served = serve(exiting, max_threads=2, max_short=2)
    for _ in range(5):
        with served.connect() as client:
            client.sendall(GET)
            assert read_all_or_reset(client) == b""
    assert is_served(served)


def test_failing_task_loses_no_thread() -> None:
    pool, share, has_run = Pool(1, 1, lambda _: None), Share("127.0.0.1"), threading.Event()

    def failing() -> None:
        raise RuntimeError("cannot enter context")

    try:
        for _ in range(20):
            pool.submit(share, failing)
        pool.submit(share, has_run.set)
        assert has_run.wait(5)
        wait_until(lambda: share.running == 0, 5, "none is counted any more")
    finally:
        pool.stop()
        share.selector.close()


@pytest.mark.parametrize("client_goes", [False, True])
def test_answer_iterator_is_closed(serve: Serve, client_goes: bool) -> None:
    closed: list[bool] = []

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            yield from [b"x" * 65536] * 1024

        def close(self) -> None:
            closed.append(True)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Chunks()

    served = serve(application)
    client = served.connect(receive_bytes=4096)
    client.sendall(GET)
    wait_until(lambda: served.front.held_bytes > 0, 5, "it waits for the client")
    if client_goes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    else:
        served.stop()
    wait_until(lambda: closed == [True], 5, "the answer is closed")
    client.close()


def test_head_and_304_have_no_body(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status = "304 NOT MODIFIED" if environ["REQUEST_METHOD"] == "GET" else "200 OK"
        start_response(status, [("Content-Length", "4")])
        return [b"body"]

    served = serve(application)
    with served.connect() as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        client.shutdown(socket.SHUT_WR)
        assert b"body" not in read_all(client)


def test_tls_clients_without_handshake_delay_nobody(serve: Serve, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    served = serve(large, certificate=Certificate(pair.cert, pair.key), request_timeout_s=2)
    silent = [served.connect() for _ in range(50)]
    for client in silent:
        client.sendall(b"\x16\x03\x01")
    context = ssl.create_default_context(cafile=str(pair.cert))
    with context.wrap_socket(served.connect(), server_hostname="localhost") as client:
        client.sendall(GET.replace(b"1.1", b"1.0"))
        assert len(read_all(client).partition(b"\r\n\r\n")[2]) == 64 << 20
    wait_until(lambda: served.front.is_done, 20, "they are cut off")
    for waiting in silent:
        waiting.close()
