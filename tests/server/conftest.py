"""The loop in a separate thread, with an application of the test."""

import socket
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import pytest

from reactorcide.server.front import Front
from reactorcide.server.tls import Certificate

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class Served:
    """A front that serves until ``stop``; ``connect`` gives a client, from whatever address of loopback."""

    def __init__(
        self,
        application: "WSGIApplication",
        *,
        certificate: Certificate | None = None,
        request_timeout_s: float = 30,
        max_threads: int = 8,
        max_short: int = 6,
        cors_origins: Collection[str] = (),
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self._listener.getsockname()[1]
        self.front = Front(
            [self._listener],
            application,
            certificate=certificate,
            request_timeout_s=request_timeout_s,
            max_threads=max_threads,
            max_short=max_short,
            cors_origins=cors_origins,
        )
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def connect(self, source: str = "127.0.0.1", receive_bytes: int | None = None) -> socket.socket:
        """Return a connected client, with a receive buffer of that size."""
        client = socket.socket()
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(10)
        client.bind((source, 0))
        client.connect(("127.0.0.1", self.port))
        return client

    def stop(self) -> None:
        """End the loop and close the sockets. Safe to repeat."""
        self._is_ending.set()
        self.front.wake()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._is_ending.is_set():
            self.front.turn(0.05)
        self.front.begin_to_stop()
        self.front.close()


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A factory of fronts that end with the test."""
    services: list[Served] = []

    def make(application: "WSGIApplication", **options: object) -> Served:
        services.append(Served(application, **options))  # type: ignore[arg-type]  # those of a front
        return services[-1]

    yield make
    for one in services:
        one.stop()


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    return b"".join(iter(lambda: client.recv(65536), b""))
