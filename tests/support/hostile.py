"""Clients that mean harm, hundreds of them from one address, and somebody else who asks for health meanwhile.

They run in a process of their own: ``python -m tests.support.hostile PORT SOCKETS SECONDS``.
"""

import itertools
import json
import selectors
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from tests.support.service import Service

_ROOT = Path(__file__).resolve().parents[2]
_HOST = b"Host: localhost\r\n"
_JSON = b"Content-Type: application/json\r\n"
_numbers = itertools.count()


@dataclass(frozen=True)
class Kind:
    """What one kind of client sends at first, and then every ``drip_s`` seconds, and whether it reads."""

    name: str
    begin: Callable[[], bytes]
    drip_s: float | None = None
    reads: bool = True
    receive_bytes: int | None = None


def _get(path: str, fields: bytes = _HOST, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\n".encode() + fields + b"\r\n"


def _post(path: str, body: bytes, *, fields: bytes = b"", length: int | None = None) -> bytes:
    announced = f"Content-Length: {len(body) if length is None else length}\r\n".encode()
    return f"POST {path} HTTP/1.1\r\n".encode() + _HOST + fields + announced + b"\r\n" + body


def _chunked(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\n".encode() + _HOST + _JSON + b"Transfer-Encoding: chunked\r\n\r\n" + body


_TWICE = b"{" + b",".join(b'"%d":0' % number for number in range(170_000)) + b',"1":1}'
_UPLOAD = "/api/v1/sources"
_GZIP = b"Content-Type: application/gzip\r\n"
_LARGE_FILE = _get("/api/docs/swagger-ui-bundle.js") * 6

KINDS = (
    Kind("does not close", lambda: _get("/api/v1/health", _HOST + b"Connection: close\r\n")),
    Kind("says nothing", lambda: b"", reads=False),
    Kind("half a head", lambda: b"GET / HTTP/1.1\r\nX-Slow: ", drip_s=0.5),
    Kind("refused upload", lambda: _post(_UPLOAD, b"x", fields=_GZIP, length=1_000_000), drip_s=3.5),
    Kind("refused job", lambda: _post("/api/v1/jobs", b"{", fields=_JSON, length=2_000_000), drip_s=1),
    Kind("half a body", lambda: _post("/api/v1/register", b"{", fields=_JSON, length=10_000), drip_s=1),
    Kind("tiny window", lambda: _LARGE_FILE, reads=False, receive_bytes=2048),
    Kind("reads nothing", lambda: _get("/metrics") * 50, reads=False),
    Kind("keys twice, refused", lambda: _post("/api/v1/jobs", _TWICE, fields=_JSON)),
    Kind("keys twice", lambda: _post("/api/v1/register", _TWICE[:16_000] + b',"1":1}', fields=_JSON)),
    Kind("tiny chunks", lambda: _chunked("/api/v1/register", b"1\r\n \r\n" * 10_000)),
    Kind("bad chunk", lambda: _chunked("/api/v1/register", b"zz\r\n")),
    Kind("unknown coding", lambda: _get("/", _HOST + b"Transfer-Encoding: br\r\n", "POST")),
    Kind("invented method", lambda: _get("/api/v1/jobs", method=f"BREW{next(_numbers)}")),
    Kind("ready", lambda: _get("/api/v1/ready")),
    Kind("metrics", lambda: _get("/metrics")),
    Kind("control characters", lambda: _get("/%1b]0;owned%07")),
    Kind("foreign host", lambda: _get("/metrics", b"Host: evil.example.com\r\n")),
    Kind("bad token", lambda: _get("/api/v1/jobs", _HOST + b"Authorization: Bearer nobody-has-this\r\n")),
    Kind("many fields", lambda: _get("/", _HOST + b"A: b\r\n" * 5000)),
    Kind("long address", lambda: _get("/" + "x" * 30_000)),
    Kind("no HTTP", lambda: b"\x16\x03\x01" + bytes(200) + b"\r\n\r\n"),
)


class _Client:
    def __init__(self, kind: Kind, port: int) -> None:
        self.kind = kind
        self._unsent = kind.begin()
        self._drip_at = monotonic() + (kind.drip_s or 0)
        self.socket = socket.socket()
        if kind.receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kind.receive_bytes)
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", port))

    def on_event(self, mask: int) -> bool:
        """Return whether the connection is over."""
        try:
            if mask & selectors.EVENT_READ and not self.socket.recv(65536):
                return True
            if mask & selectors.EVENT_WRITE and self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        except OSError:
            return True
        if mask & selectors.EVENT_READ and not self._unsent and self.kind.drip_s is None:
            # Answered, or a part of it: the same again.
            self._unsent = self.kind.begin()
        return False

    def on_time(self, now: float) -> None:
        if self.kind.drip_s is not None and now >= self._drip_at and not self._unsent:
            self._unsent = b"x"
            self._drip_at = now + self.kind.drip_s

    def events(self) -> int:
        # One that reads nothing hears of the end only where it writes.
        reads = selectors.EVENT_READ if self.kind.reads else 0
        return (reads | (selectors.EVENT_WRITE if self._unsent else 0)) or selectors.EVENT_WRITE


def attack(port: int, sockets: int, seconds: float) -> Counter[str]:
    """Keep so many sockets busy, opening another for each that ends; return how many ended, by kind."""
    selector = selectors.DefaultSelector()
    kinds = itertools.cycle(KINDS)
    ended: Counter[str] = Counter()

    def add(kind: Kind) -> None:
        client = _Client(kind, port)
        selector.register(client.socket, client.events(), client)

    for _ in range(sockets):
        add(next(kinds))
    until = monotonic() + seconds
    while (now := monotonic()) < until:
        for key, mask in selector.select(0.05):
            client: _Client = key.data
            if client.on_event(mask):
                selector.unregister(client.socket)
                client.socket.close()
                ended[client.kind.name] += 1
                add(client.kind)
            elif client.events() != key.events:
                selector.modify(client.socket, client.events(), client)
        for key in list(selector.get_map().values()):
            key.data.on_time(now)
        sleep(0.01)
    return ended


@contextmanager
def attackers(module: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run an attacking module in a separate process that prints its results, and kill it at the end."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def attacked(
    service: Service, sockets: int, seconds: float
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """Attack a service from a separate process."""
    return attackers("tests.support.hostile", str(service.port), str(sockets), str(seconds))


def ask_for_health(port: int, *, source: str, seconds: float) -> list[float]:
    """Return how long each answer took, in seconds, on new connections and on one that stays open."""
    request = _get("/api/v1/health")
    took: list[float] = []
    until = monotonic() + seconds

    def ask(client: socket.socket) -> None:
        client.sendall(request)
        answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))

    with closing(connect()) as lasting:
        while monotonic() < until:
            start_s = monotonic()
            ask(lasting)
            took.append(monotonic() - start_s)
            start_s = monotonic()
            with closing(connect()) as fresh:
                ask(fresh)
            took.append(monotonic() - start_s)
            sleep(0.02)
    return took


def memory_bytes(service: Service) -> int:
    """Return the memory of all processes of a service (PSS) but git, which has limits of its own."""
    total = 0
    for pid in service.pids():
        with suppress(OSError):
            if (Path("/proc") / str(pid) / "comm").read_text().startswith("git"):
                continue
            for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
    return total


def descriptors(service: Service) -> int:
    """Return how many files are open in that of its processes that has most of them.

    Not in all together: between its fork and its exec a git process has copies of all of the service's.
    """
    most = 0
    for pid in service.pids():
        with suppress(OSError):
            most = max(most, len(list((Path("/proc") / str(pid) / "fd").iterdir())))
    return most


if __name__ == "__main__":
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(json.dumps(attack(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
