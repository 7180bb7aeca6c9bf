"""A slow and bad line to a TCP port of this host: bytes take their time, and connections break."""

import contextlib
import queue
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep

_PIECE_BYTES = 1 << 14


@dataclass
class Break:
    """Breaks the connection of the first request whose beginning matches, after so many bytes.

    They are counted from this request on, of what the client sends, or with ``is_of_answer`` of the answer.
    """

    pattern: bytes
    after_bytes: int
    is_of_answer: bool = False
    has_happened: bool = False


@dataclass
class _Connection:
    """Two sockets, and how the connection between them is to break."""

    client: socket.socket
    server: socket.socket
    pending: Break | None = None
    counted_bytes: int = 0

    def end(self) -> None:
        for each in (self.client, self.server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Line:
    """A proxy on a port of its own, until ``close``. Delay, rate and breaks may be changed at any time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.delay_s = 0.0
        """How long a byte is under way, in each direction."""
        self.bytes_per_s: float | None = None
        """The rate of each connection in each direction."""
        self.breaks: list[Break] = []
        self._is_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def cut(self) -> None:
        """Pass on nothing any more, in either direction: neither an answer nor a refusal."""
        self._is_cut = True

    def mend(self) -> None:
        """Pass on what comes from now on; what was cut stays lost."""
        for connection in self._connections:
            connection.end()
        self._is_cut = False

    def close(self) -> None:
        """End the line with all that is under way."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.mend()
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection.client.close()
            connection.server.close()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                connection = _Connection(client, socket.create_connection(("127.0.0.1", self._port)))
                self._connections.append(connection)
                for is_answer in (False, True):
                    under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    self._spawn(self._take, connection, is_answer, under_way)
                    self._spawn(self._give, connection, is_answer, under_way)

    def _take(
        self, connection: _Connection, is_answer: bool, under_way: "queue.SimpleQueue[tuple[float, bytes]]"
    ) -> None:
        source = connection.server if is_answer else connection.client
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                under_way.put((monotonic() + self.delay_s, data))
        under_way.put((0.0, b""))

    def _give(
        self, connection: _Connection, is_answer: bool, under_way: "queue.SimpleQueue[tuple[float, bytes]]"
    ) -> None:
        target = connection.client if is_answer else connection.server
        with contextlib.suppress(OSError):
            while True:
                due, data = under_way.get()
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                if self._is_cut:
                    continue
                sleep(max(0.0, due - monotonic()))
                if self.bytes_per_s is not None:
                    sleep(len(data) / self.bytes_per_s)
                whole, data = len(data), self._before_break(connection, data, is_answer=is_answer)
                target.sendall(data)
                if len(data) < whole:
                    connection.end()
                    return

    def _before_break(self, connection: _Connection, data: bytes, *, is_answer: bool) -> bytes:
        """Return how much of a piece still passes."""
        if not is_answer and connection.pending is None:
            for each in self.breaks:
                if not each.has_happened and re.match(each.pattern, data):
                    each.has_happened = True
                    connection.pending, connection.counted_bytes = each, 0
                    break
        pending = connection.pending
        if pending is None or pending.is_of_answer != is_answer:
            return data
        passed = data[: pending.after_bytes - connection.counted_bytes]
        connection.counted_bytes += len(passed)
        return passed
