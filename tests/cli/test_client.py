"""What the client makes of services that misbehave: a server that does as each test says."""

import gzip
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from reactorcide.cli.client import Client
from reactorcide.cli.connect import connect
from reactorcide.cli.session import ServiceAway, ServiceError
from reactorcide.domain.errors import ConfigurationError
from reactorcide.lib.ids import new_id
from reactorcide.logs.reader import Piece
from reactorcide.web.sse import log_events
from tests.cli.conftest import Program
from tests.support.launch import LAUNCHER

_JOB_ID = new_id()
_LOGS = f"/api/v1/jobs/{_JOB_ID}/logs"

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as ``Server.answer`` says."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.authorizations.append(self.headers["Authorization"])
        self.server.last_ids.append(self.headers["Last-Event-ID"])
        self.server.answer(self)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def say(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Answer, and be done."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, *chunks: bytes, at: str = "1:0", breaks: bool = False) -> None:
        """Answer in chunks from a place in the log on, and end properly or not."""
        self.send_response(200)
        self.send_header("X-Log-Position", at)
        self.send_header("Transfer-Encoding", "chunked")
        # Without it the client may send its next request on a connection that is just being closed.
        self.send_header("Connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if not breaks:
            self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    """A service on a free port of this host."""

    answer: Answer

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.last_ids: list[str | None] = []
        self.client_closed = threading.Event()
        """Set once the client has closed its connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that has nothing to say yet."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def client_of(server: Server) -> Iterator[Client]:
    """Yield a client that is not patient for long."""
    with Client(server.url, "a-token-of-16-characters", "from the test") as client:
        yield client


# --- where the service is, and whose token ------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost.example.com", "192.0.2.1"])
def test_token_file_is_not_sent_to_a_port(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    (tmp_path / "admin-token").write_text("rct_secret\n")
    server.answer = lambda handler: handler.say(b'{"message": "send a token"}', 401)
    monkeypatch.setattr("socket.getaddrinfo", _everything_is_here(server))
    monkeypatch.setenv("no_proxy", "*")
    url = f"http://{host}:{server.server_address[1]}"
    with (
        connect({"REACTORCIDE_DATA_DIR": str(tmp_path), "REACTORCIDE_API_URL": url}) as client,
        pytest.raises(ServiceError, match="set REACTORCIDE_API_TOKEN") as raised,
    ):
        client.health()
    assert server.authorizations == [None]
    assert ("unset REACTORCIDE_API_URL" in str(raised.value)) is (host in ("localhost", "127.0.0.1"))


@pytest.mark.parametrize("token", ["", "rct_variable"])
def test_without_a_url_nothing_is_sent_over_tcp(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    (tmp_path / "admin-token").write_text("rct_secret\n")
    # Another program may have the service's port while the service is down.
    monkeypatch.setattr("socket.getaddrinfo", _everything_is_here(server))
    monkeypatch.setenv("no_proxy", "*")
    server.answer = lambda handler: handler.say(b'{"status": "OK"}')
    environment = {"REACTORCIDE_DATA_DIR": str(tmp_path), "REACTORCIDE_API_TOKEN": token}
    with connect(environment) as client, pytest.raises(ServiceAway, match=f"no service runs in {tmp_path}"):
        client.health()
    assert server.authorizations == []


def _everything_is_here(server: Server) -> Callable[..., object]:
    import socket

    address = ("127.0.0.1", server.server_address[1])
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]


def test_the_variable_wins_over_the_file_and_a_netrc(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "admin-token").write_text("rct_file\n")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    # Requests to a service on this host do not go through a proxy.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.answer = lambda handler: handler.say(b'{"status": "OK"}')
    environment = {
        "REACTORCIDE_API_URL": server.url,
        "REACTORCIDE_API_TOKEN": " rct_variable ",
        "REACTORCIDE_DATA_DIR": str(tmp_path),
    }
    with connect(environment) as client:
        client.health()
    assert server.authorizations[-1] == "Bearer rct_variable"


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", "http://[::1", "http://x:y"])
def test_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REACTORCIDE_API_URL"):
        connect({"REACTORCIDE_API_URL": url})


# --- answers that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler: handler.say(b"<html>hello</html>"),
        lambda handler: handler.say(b"[]"),
        lambda handler: handler.say(b"no such page", 404),
        lambda handler: handler.say(b'{"detail": "x"}', 500),
    ],
)
def test_other_server_is_reported_as_not_reactorcide(server: Server, answer: Answer) -> None:
    server.answer = answer
    with client_of(server) as client, pytest.raises(ServiceError, match="is not Reactorcide"):
        client.health()


def test_answers_of_other_servers_do_not_control_the_terminal(
    server: Server, lone: Program, tmp_path: Path
) -> None:
    program = lone.with_variables(REACTORCIDE_API_URL=server.url)
    server.answer = lambda handler: handler.say(b'{"message": "\\u001b]0;owned\\u0007"}', 400)
    assert program.refused("jobs", "list") == "reactorcide: \\x1b]0;owned\\x07\n"
    server.answer = lambda handler: handler.say(b"", 308, Location="https://\x1b]0;owned")
    assert "\x1b" not in program.refused("jobs", "list")
    server.answer = lambda handler: handler.say(b'{"status": "OK", "version": "\\u001b]0;owned"}')
    result = lone("doctor", "--port", server.server_address[1])
    assert ("owned" in result.text, "\x1b" in result.text) == (True, False)


def test_a_redirect_is_not_followed_but_explained(server: Server) -> None:
    server.answer = lambda handler: handler.say(b"", 308, Location="https://ci.example.com/api/v1/health")
    with client_of(server) as client, pytest.raises(ServiceError, match=r"to https://ci\.example\.com$"):
        client.health()
    server.answer = lambda handler: handler.say(b"", 301, Location=f"/ci{handler.path}")
    with client_of(server) as client, pytest.raises(ServiceError, match=f"to {server.url}/ci$"):
        client.health()


# As nginx 1.22 answers for itself.
_PAGE = b"<html>\r\n<head><title>%s</title></head>\r\n<body><h1>%s</h1></body>\r\n</html>\r\n"


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (502, {}, "gets no answer from the service (status 502); try again"),
        (503, {}, "gets no answer from the service (status 503); try again"),
        (504, {}, "gets no answer from the service (status 504); try again"),
        (401, {"WWW-Authenticate": 'Basic realm="x"'}, "wants a login of its own (status 401)"),
        (407, {}, "wants a login of its own (status 407)"),
        (
            302,
            {"Location": "https://sso.example.com/login?rd=/api/v1/health"},
            "https://sso.example.com/login,",
        ),
        (303, {"Location": "/login?next=/api/v1/health"}, "a page to log in perhaps; it has to let requests"),
    ],
)
def test_error_of_a_proxy_is_reported_as_the_proxys(
    server: Server, status: int, headers: dict[str, str], expected: str
) -> None:
    server.answer = lambda handler: handler.say(_PAGE % (2 * (b"x",)), status, **headers)
    with client_of(server) as client, pytest.raises(ServiceError) as caught:
        client.health()
    message = str(caught.value)
    assert message.startswith("a proxy (BaseHTTP/0.6 Python/3")
    assert f" in front of {server.url} " in message
    assert expected in message
    assert "is not Reactorcide" not in message
    assert isinstance(caught.value, ServiceAway) is (status > 500)


def test_upload_too_large_for_a_proxy_is_an_error_with_advice(
    server: Server, lone: Program, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(os.urandom(1 << 20))

    def answer(handler: Handler) -> None:
        if handler.path.endswith("/sources"):
            handler.rfile.read(int(handler.headers["Content-Length"]))
            handler.say(_PAGE % (2 * (b"413 Request Entity Too Large",)), 413)
        else:
            handler.say(b'{"message": "no such source"}', 404)

    server.answer = answer
    program = lone.with_variables(REACTORCIDE_API_URL=server.url, REACTORCIDE_API_TOKEN="rct_" + 16 * "x")
    message = program.refused("submit", "x", "--source", tmp_path / "tree", "--upload", "--", "true")
    assert "refuses a request of 1 MiB (status 413)" in message
    assert "client_max_body_size" in message


def test_missing_source_is_believed_from_the_service_only(server: Server) -> None:
    with client_of(server) as client:
        server.answer = lambda handler: handler.say(b'{"message": "no such source"}', 404)
        assert client.has_source("0" * 64) is False
        server.answer = lambda handler: handler.say(_PAGE % (2 * (b"404 Not Found",)), 404)
        with pytest.raises(ServiceError, match="is not Reactorcide"):
            client.has_source("0" * 64)


def test_https_to_a_plain_port_and_http_to_a_tls_port_are_clear_errors(server: Server) -> None:
    with (
        Client(server.url.replace("http:", "https:"), None, "") as client,
        pytest.raises(ServiceError, match=r"no TLS can be spoken .*http:// in place of https://"),
    ):
        client.health()
    page = _PAGE % (2 * (b"400 The plain HTTP request was sent to HTTPS port",))
    server.answer = lambda handler: handler.say(page, 400)
    with client_of(server) as client, pytest.raises(ServiceError, match=r"speaks TLS: .*https://"):
        client.health()


# --- answers without an end -----------------------------------------------------------------------

_BLOCK = b"10000\r\n" + b"[" * 65_536 + b"\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_GZIP_JSON = b"HTTP/1.1 %d X\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
_ATTEMPT = b'{"attempt": 1, "status": "running"}'


def _repeats(start: bytes, part: bytes, *, wait_s: float = 0) -> Answer:
    """Return an answer that repeats a part until the client has closed, but at most 800 MB of it."""

    def answer(handler: Handler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(start)
            for _ in range(800_000_000 // len(part)):
                handler.wfile.write(part)
                if wait_s and handler.server.client_closed.wait(wait_s):
                    return

    return answer


_FOLLOW = ["jobs", "logs", "-f", _JOB_ID]
_OK = b"HTTP/1.1 200 OK\r\n"
_LOG = _OK + b"X-Log-Position: 1:0\r\n"


@pytest.mark.parametrize(
    ("start", "part", "command", "expected"),
    [
        (_OK + _CHUNKED, _BLOCK, ["jobs", "list"], "a body of more than 16 MiB"),
        (_OK + b"\r\n", b"[" * 65_536, ["jobs", "list"], "a body of more than 16 MiB"),
        (
            _OK + _CHUNKED + b"0\r\n",
            b"X: %b\r\n" % (b"x" * 60_000),
            ["jobs", "list"],
            "a body of more than 17 MiB",
        ),
        (b"HTTP/1.1 500 X\r\n" + _CHUNKED, _BLOCK, ["jobs", "list"], "(status 500) is not Reactorcide"),
        (b"HTTP/1.1 400 X\r\n" + _CHUNKED, _BLOCK, ["jobs", "list"], "(status 400) is not Reactorcide"),
        (b"HTTP/1.1 302 X\r\nLocation: /x\r\n" + _CHUNKED, _BLOCK, ["jobs", "list"], "a page to log in"),
        (_LOG + b"\r\ndata: ", b"a" * 65_536, [*_FOLLOW, "--timestamps"], "an event of more than 1 MiB"),
        (_LOG + b"\r\n", b"a: b\n" * 1000, [*_FOLLOW, "--timestamps"], "an event of more than 1 MiB"),
        (_LOG + _CHUNKED + b"0\r\n", b"X: x\r\n" * 1000, _FOLLOW, "a body of more than 1 MiB"),
        (_OK + b"X: ", b"a" * 65_536, ["jobs", "list"], "not valid HTTP (LineTooLong"),
        (_OK, b"X: x\r\n", ["jobs", "list"], "not valid HTTP (HTTPException"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", ["jobs", "list"], "a head of more than 256 KiB"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"x", ["jobs", "list"], "not valid HTTP (BadStatusLine"),
    ],
)
def test_endless_answer_is_refused(
    server: Server, lone: Program, start: bytes, part: bytes, command: list[str], expected: str
) -> None:
    endless = _repeats(start, part)
    server.answer = lambda handler: (
        endless(handler) if "/logs" in handler.path or "list" in command else handler.say(_ATTEMPT)
    )
    message = _refused_in_little_memory(lone, server, *command)
    assert expected in message
    assert "REACTORCIDE_API_URL" in message or "requests to /api/v1" in message
    assert "start one" not in message


@pytest.mark.parametrize("status", [200, 500])
def test_compressed_answer_that_expands_is_refused(server: Server, lone: Program, status: int) -> None:
    server.answer = _repeats(_GZIP_JSON % status, gzip.compress(b" " * (1 << 20)))
    message = _refused_in_little_memory(lone, server, "jobs", "list")
    assert ("more than 16 MiB" if status == 200 else "(status 500) is not Reactorcide") in message


def test_answer_that_would_need_much_memory_is_not_parsed(server: Server, lone: Program) -> None:
    body = b"[" + b"[]," * (10 << 20) + b"[]]"
    head = _OK + b"Content-Length: %d\r\n\r\n" % len(body)

    def answer(handler: Handler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(head + body)

    server.answer = answer
    assert "a body of more than 16 MiB" in _refused_in_little_memory(lone, server, "jobs", "list")


def _refused_in_little_memory(lone: Program, server: Server, *command: str) -> str:
    """Run a command with an address space of half of what the server sends."""
    program = lone.with_variables(REACTORCIDE_API_URL=server.url, REACTORCIDE_API_TOKEN="t" * 20)
    return program.refused(*command, python=("sh", "-c", 'ulimit -v 400000; exec "$@"', "sh", *LAUNCHER))


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"", b"H"),
        (_OK + b"X: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (_OK + b"Content-Length: 1000000\r\n\r\n", b"["),
        (_OK + _CHUNKED, b"1\r\n[\r\n"),
        (_OK + _CHUNKED + b"1;", b"x"),
        (_OK + _CHUNKED + b"2\r\n{}\r\n0\r\nX: ", b"x"),
        (b"HTTP/1.1 500 X\r\n" + _CHUNKED, b"1\r\n[\r\n"),
        (b"HTTP/1.1 302 X\r\nLocation: ", b"x"),
    ],
)
def test_slow_answer_has_a_deadline(
    server: Server, monkeypatch: pytest.MonkeyPatch, start: bytes, part: bytes
) -> None:
    monkeypatch.setattr("reactorcide.cli.session.CONNECT_S", 0.5)
    monkeypatch.setattr("reactorcide.cli.session._BODY_S", 0.5)
    server.answer = _repeats(start, part, wait_s=0.05)
    began_at = time.monotonic()
    with client_of(server) as client, pytest.raises(ServiceAway, match="takes too long to answer; try again"):
        client.health()
    server.client_closed.set()
    assert time.monotonic() - began_at < 10


def test_a_download_and_a_followed_log_may_take_longer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.cli.session._BODY_S", 0.1)
    monkeypatch.setattr("reactorcide.cli.session._MAX_UNDECODED_BYTES", 1 << 18)

    def answer(handler: Handler) -> None:
        if not handler.path.startswith(f"/api/v1/jobs/{_JOB_ID}/"):
            handler.say(_ATTEMPT)
            return
        handler.send_response(200)
        for name, value in {"X-Log-Position": "1:0", "Content-Length": str(1 << 20)}.items():
            handler.send_header(name, value)
        handler.end_headers()
        for _ in range(16):
            handler.wfile.write(bytes(1 << 16))
            handler.server.client_closed.wait(0.03)

    server.answer = answer
    with client_of(server) as client:
        assert b"".join(client.artifact(_JOB_ID, "file")) == bytes(1 << 20)
        assert b"".join(client.follow(_JOB_ID)) == bytes(1 << 20)


def test_largest_event_of_the_service_is_accepted(server: Server) -> None:
    text = b"\xff" * (1 << 16)
    events = b"".join(log_events(1, Piece("stdout", 0, len(text), text)))
    assert len(events) > 6 * len(text)

    def answer(handler: Handler) -> None:
        if handler.path.startswith(_LOGS):
            handler.stream(*(events[at : at + 1000] for at in range(0, len(events), 1000)))
        else:
            handler.say(_ATTEMPT)

    server.answer = answer
    with client_of(server) as client:
        assert b"".join(client.follow(_JOB_ID, stream="stdout")).decode() == "\ufffd" * len(text)


def test_connection_is_reused(server: Server) -> None:
    ports: list[int] = []

    def answer(handler: Handler) -> None:
        ports.append(handler.client_address[1])
        handler.say(b'{"status": "OK"}')

    server.answer = answer
    with client_of(server) as client:
        for _ in range(3):
            client.health()
    assert len(ports) == 3
    assert len(set(ports)) == 1


# --- following ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [None, 3])
def test_broken_stream_reconnects_at_its_last_position(server: Server, tail: int | None) -> None:
    log, breaks = b"one\ntwo\nthree\n", [3, 4, 8]
    start = 0 if tail is None else 500

    def answer(handler: Handler) -> None:
        if not handler.path.startswith(_LOGS):
            handler.say(b'{"attempt": 1, "status": "completed"}')
            return
        at = handler.headers.get("Last-Event-ID", f"1:{start}")
        offset = int(at.partition(":")[2]) - start
        if breaks:
            handler.stream(log[offset : breaks.pop(0)], at=at, breaks=True)
        else:
            handler.stream(log[offset : offset + 2], log[offset + 2 :], at=at)

    server.answer = answer
    with client_of(server) as client:
        assert b"".join(client.follow(_JOB_ID, tail=tail)) == log
    sent = [last for path, last in zip(server.paths, server.last_ids, strict=True) if path.startswith(_LOGS)]
    assert sent == [None, f"1:{start + 3}", f"1:{start + 4}", f"1:{start + 8}"]


def test_log_events_are_joined_to_text(server: Server) -> None:
    t = "2026-01-31T23:59:59.007Z"
    events = (
        b'id: 1:0\n\nid: 1:4\ndata: {"t": "%s", "stream": "stdout", "text": "one\\n"}\n\n',
        b': nothing new\n\nid: 1:9\ndata: {"t": "%s", "stream": "stdout", "text": "tw"}\n\n',
        b'id: 1:12\ndata: {"t": "%s", "stream": "stdout", "text": "o\\n"}\n\n',
        b'event: end\ndata: {"status": "completed"}\n\n',
    )
    stamped = [text % t.encode() if b"%s" in text else text for text in events]

    def answer(handler: Handler) -> None:
        if not handler.path.startswith(_LOGS):
            handler.say(b'{"attempt": 1, "status": "completed"}')
        elif handler.headers["Last-Event-ID"] is None:
            handler.stream(*stamped[:2], breaks=True)
        else:
            handler.stream(*stamped[2:], at=handler.headers["Last-Event-ID"])

    server.answer = answer
    with client_of(server) as client:
        text = b"".join(client.follow(_JOB_ID, stream="stdout", timestamps=True))
    assert text.decode() == f"{t} one\n{t} two\n"
    assert "1:9" in server.last_ids


def test_following_continues_with_the_next_attempt(server: Server) -> None:
    attempt, broken = 1, False

    def answer(handler: Handler) -> None:
        nonlocal attempt, broken
        if not handler.path.startswith(_LOGS):
            handler.say(b'{"attempt": %d, "status": "completed"}' % attempt)
        elif handler.query["attempt"] == "1":
            # The next attempt begins while the connection is broken.
            at = handler.headers.get("Last-Event-ID", "1:0")
            offset = int(at.partition(":")[2])
            handler.stream(b"first\n"[offset : 6 if broken else 2], at=at, breaks=not broken)
            broken, attempt = True, 2
        else:
            handler.stream(b"second\n", at="2:0")

    server.answer = answer
    with client_of(server) as client:
        assert b"".join(client.follow(_JOB_ID)) == b"first\nsecond\n"
        assert b"".join(client.follow(_JOB_ID, attempt=1)) == b"first\n"


def test_following_waits_for_a_service_that_is_busy(server: Server) -> None:
    busy = [b'{"message": "too many followers"}'] * 2

    def answer(handler: Handler) -> None:
        if not handler.path.startswith(_LOGS):
            handler.say(b'{"attempt": 1, "status": "completed"}')
        elif busy:
            handler.say(busy.pop(), 503)
        else:
            handler.stream(b"log")

    server.answer = answer
    with client_of(server) as client:
        assert b"".join(client.follow(_JOB_ID)) == b"log"


def test_following_gives_up_after_a_bounded_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactorcide.cli.client._PATIENCE_S", 0.3)
    monkeypatch.setattr("reactorcide.cli.client._PAUSE_S", 0.1)
    server.answer = lambda handler: handler.say(b"{}", 503)
    with client_of(server) as client:
        with pytest.raises(ServiceAway, match=f"reactorcide jobs logs -f {_JOB_ID}"):
            list(client.follow(_JOB_ID, attempt=1))
        with pytest.raises(ServiceAway, match=f"reactorcide jobs logs -f {_JOB_ID}"):
            client.until_final(_JOB_ID)


# --- downloading --------------------------------------------------------------------------------


def _offers(path: str, content: bytes, sha256: str | None = None) -> Answer:
    digest = sha256 or hashlib.sha256(content).hexdigest()

    def answer(handler: Handler) -> None:
        if handler.path.endswith("/artifacts"):
            item = f'{{"path": "{path}", "size": {len(content)}, "sha256": "{digest}"}}'
            handler.say(f'{{"artifacts": [{item}]}}'.encode())
        else:
            handler.say(content)

    return answer


@pytest.mark.parametrize(
    "path", ["../evil", "a/../../evil", "/etc/evil", "a//evil", ".", "", "link/evil", "a\\u0000b"]
)
def test_artifact_path_outside_of_the_directory_is_refused(
    server: Server, lone: Program, tmp_path: Path, path: str
) -> None:
    outside, output = tmp_path / "outside", tmp_path / "inside" / "output"
    outside.mkdir()
    output.mkdir(parents=True)
    (output / "link").symlink_to(outside)
    server.answer = _offers(path, b"evil")
    program = lone.with_variables(REACTORCIDE_API_URL=server.url)
    message = program.refused("jobs", "artifacts", _JOB_ID, "--output", output)
    assert "outside of" in message
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == []


def test_damaged_artifact_is_removed(server: Server, lone: Program, tmp_path: Path) -> None:
    server.answer = _offers("file", b"damaged", sha256="0" * 64)
    program = lone.with_variables(REACTORCIDE_API_URL=server.url)
    (tmp_path / "file").write_text("as it was")
    assert "damaged" in program.refused("jobs", "artifacts", _JOB_ID, "--output", tmp_path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "as it was")]


@pytest.mark.parametrize(
    "body",
    [
        b'{"jobs": ' + b"[" * 200_000,
        b"{}",
        b'{"jobs": 5}',
        b'{"jobs": [5], "total": 1}',
        b'{"jobs": [{"job_id": 1}], "total": 1}',
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["jobs", "list"],
        ["jobs", "show", _JOB_ID],
        ["jobs", "artifacts", _JOB_ID],
        ["submit", "n", "--follow", "--", "true"],
    ],
)
def test_unreadable_answer_is_an_error_with_advice(
    server: Server, lone: Program, body: bytes, command: list[str]
) -> None:
    server.answer = lambda handler: handler.say(body)
    program = lone.with_variables(REACTORCIDE_API_URL=server.url, REACTORCIDE_API_TOKEN="t" * 20)
    assert "check REACTORCIDE_API_URL" in program.refused(*command)
