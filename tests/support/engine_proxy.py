"""A proxy that makes the Docker Engine unreachable and reachable again for its clients."""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support.ports import free_port

ENGINE_SOCKET = "/var/run/docker.sock"


class Hold:
    """Holds back requests until it is let go, as an engine does that is busy with its disk."""

    def __init__(self, pattern: bytes) -> None:
        """``pattern`` is matched against the beginning of a request: its method and path."""
        self._pattern = re.compile(pattern)
        self._over = threading.Event()
        self.held: list[bytes] = []
        """The first line of each request that was held back."""

    def __call__(self, data: bytes) -> None:
        """Wait where this begins such a request."""
        if self._pattern.match(data) and not self._over.is_set():
            self.held.append(data.partition(b"\r\n")[0])
            self._over.wait(120)

    def let_go(self) -> None:
        """Hold nothing back any more."""
        self._over.set()


class EngineProxy:
    """A socket that forwards to the local engine while it is on; it begins switched off.

    ``before`` is called with each piece that a client sends, before the engine gets it.
    """

    def __init__(self, path: Path, before: Callable[[bytes], None] = lambda _: None) -> None:
        self.path = path
        self._before = before
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """What a client's ``DOCKER_HOST`` is."""
        return f"unix://{self.path}"

    def on(self) -> None:
        """Accept connections."""
        listener = self._bound()
        listener.listen(64)
        self._listener = listener
        self._spawn(self._accept, listener)

    def off(self) -> None:
        """Refuse connections, and break those that are open. Safe to repeat."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._unbind()
        with self._lock:
            broken, self._open = self._open, set()
        for each in (listener, *broken):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        for each in (listener, *broken):
            each.close()

    def _bound(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        return listener

    def _unbind(self) -> None:
        os.unlink(self.path)

    def _connected(self) -> socket.socket:
        engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        engine.connect(ENGINE_SOCKET)
        return engine

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            engine = self._connected()
            with self._lock:
                if self._listener is not listener:
                    client.close()
                    engine.close()
                    return
                self._open |= {client, engine}
            self._spawn(_forward, client, engine, self._before)
            self._spawn(_forward, engine, client, lambda _: None)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()


class TcpProxy(EngineProxy):
    """The same for a TCP port of this host, on a port that stays the same."""

    def __init__(self, target_port: int) -> None:
        super().__init__(Path())
        self._target_port = target_port
        self.port = free_port()

    def turn_to(self, target_port: int) -> None:
        """Break all connections, and forward further ones to another port."""
        self.off()
        self._target_port = target_port
        self.on()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def _bound(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", self.port))

    def _unbind(self) -> None:
        pass

    def _connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._target_port))


def _forward(source: socket.socket, target: socket.socket, before: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            before(data)
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
