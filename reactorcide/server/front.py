"""The loop: it waits for all clients at once, has threads answer requests, and closes slow connections."""

import logging
import os
import resource
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import h11

from reactorcide.imports import shortage_of
from reactorcide.lib.networks import network_of
from reactorcide.server.connection import Connection
from reactorcide.server.exchange import IS_A_QUESTION, Exchange, make_environ
from reactorcide.server.shares import Pool, Share
from reactorcide.server.tls import Certificate

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger("reactorcide.web")

_MAX_CONNECTIONS = 3000
_MAX_TLS_CONNECTIONS = 1000
"""Each takes some 40 KiB."""
_RESERVED_FILES = 512
"""Open files that the service itself needs, of those the process may have."""
_MAX_HELD_BYTES = 32 << 20
"""The memory of the requests and answers of all clients together."""
_MAX_LINGERING = 100
"""Answered clients of one address that have not closed yet."""
_TURN_EVENTS = 16
_TURN_S = 0.005
"""The most time per turn of the loop for one share, or for new clients."""
_SWEEP_S = 0.5
_SHORTAGE_LOG_S = 60
"""The interval of the log's line that connections cannot be accepted."""
_UNSENT_BYTES = 128 << 10
_KEEPALIVE_S = 15
"""The interval of TCP's probes to a silent client."""
_UNTAKEN_S = 60
"""How long TCP keeps data that a client does not read, even after the connection has been closed."""


def files_for_clients() -> int:
    """Return how many open files the clients may take: one each, and one for each address."""
    max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max_files == resource.RLIM_INFINITY:
        return 2 * _MAX_CONNECTIONS
    return max(max_files - _RESERVED_FILES, max_files // 2)


class Front:
    """Serves the application on listening sockets until ``stop``."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        application: "WSGIApplication",
        *,
        certificate: Certificate | None,
        request_timeout_s: float,
        max_threads: int,
        max_short: int,
        cors_origins: Collection[str] = (),
    ) -> None:
        self.request_timeout_s = request_timeout_s
        self.is_stopping = False
        self.pool = Pool(max_threads, max_short, self._became_free)
        self._application = application
        self._certificate = certificate
        self._max_connections = _MAX_CONNECTIONS if certificate is None else _MAX_TLS_CONNECTIONS
        self._max_files = files_for_clients()
        self._cors_origins = cors_origins
        self._listeners = listeners
        self._server = listeners[0].getsockname()[:2]
        self._selector = selectors.DefaultSelector()
        self._shares: dict[str, Share] = {}
        self._connections = 0
        self.held_bytes = 0
        """The memory of all requests and answers."""
        self._held_lock = threading.Lock()
        self._deferred: deque[Callable[[], None]] = deque()
        self._wake_in, self._wake_out = os.pipe()
        self._is_awake = False
        self._turn = 0
        self._next_sweep = 0.0
        self._paused: list[socket.socket] = []
        """Listeners that are not watched until the next sweep."""
        self._next_shortage_log = 0.0
        for end in (self._wake_in, self._wake_out):
            os.set_blocking(end, False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._wake_up)
        for listener in listeners:
            listener.setblocking(False)
            if listener.family != socket.AF_UNIX:
                # Accepted sockets inherit these.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
                    if hasattr(socket, name):
                        listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), _KEEPALIVE_S)
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _UNTAKEN_S)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    # Otherwise the kernel buffers megabytes that a client does not read.
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
            self._watch(listener)

    # --- the loop --------------------------------------------------------------------------------

    def turn(self, timeout_s: float) -> None:
        """Wait for events for up to ``timeout_s``, and handle them."""
        for key, _ in self._selector.select(timeout_s):
            key.data()
        self._run_deferred()
        while self.held_bytes > _MAX_HELD_BYTES and self._make_room(Share.held_bytes):
            pass
        now = monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_S
            while self._paused:
                self._watch(self._paused.pop())
            for share in list(self._shares.values()):
                for connection in list(share.connections):
                    self._guarded(connection, partial(connection.on_time, now))
                self._limit_lingering(share)

    def _limit_lingering(self, share: Share) -> None:
        """Close the clients that have had the most time to take their answer and close."""
        lingering = [
            (until, number, connection)
            for number, connection in enumerate(share.connections)
            if (until := connection.lingers_until) is not None
        ]
        for _, _, connection in sorted(lingering)[:-_MAX_LINGERING]:
            connection.close()

    def begin_to_stop(self) -> None:
        """Accept no more clients, and close the connections that have no request."""
        self.is_stopping = True
        for listener in self._listeners:
            if listener not in self._paused:
                self._selector.unregister(listener)
        self._paused.clear()
        for connection in self._all():
            connection.stop()

    @property
    def is_done(self) -> bool:
        """Return whether there is no connection left."""
        return not self._connections

    def close(self) -> None:
        """Close all connections, and end the threads after their tasks."""
        for connection in self._all():
            connection.close()
        self.pool.stop()

    def _all(self) -> list[Connection]:
        return [connection for share in self._shares.values() for connection in share.connections]

    def _serve(self, share: Share) -> None:
        """Handle the events of one share, within its limits for one turn."""
        if not share.connections:
            # Closed earlier in this turn.
            return
        ready = share.selector.select(0)
        # If there are more events than the limit, begin with others each time.
        self._turn += _TURN_EVENTS
        begin = self._turn % len(ready) if len(ready) > _TURN_EVENTS else 0
        ended = monotonic() + _TURN_S
        for key, mask in (ready[begin:] + ready[:begin])[:_TURN_EVENTS]:
            self._guarded(key.data, partial(key.data.update, mask))
            if monotonic() > ended or share.is_busy:
                break
        self._poll(share)

    def _guarded(self, connection: Connection, act: Callable[[], None]) -> None:
        """Call ``act``; an error closes this connection alone."""
        try:
            act()
        except OSError as exc:
            log.debug("the connection of %s broke: %s", connection.address[0], exc)
            connection.close()
        except Exception:
            log.exception("a connection failed unexpectedly")
            connection.close()

    def _poll(self, share: Share) -> None:
        """Watch the clients of a share unless it is busy."""
        is_polled = not share.is_busy and bool(share.connections)
        if is_polled != share.is_polled:
            share.is_polled = is_polled
            if is_polled:
                self._selector.register(share.selector, selectors.EVENT_READ, partial(self._serve, share))
            else:
                self._selector.unregister(share.selector)

    def _watch(self, listener: socket.socket) -> None:
        self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))

    def _accept(self, listener: socket.socket) -> None:
        ended = monotonic() + _TURN_S
        while monotonic() < ended:
            try:
                sock, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except (OSError, MemoryError) as exc:
                shortage = shortage_of(exc)
                if shortage is None:
                    raise
                self._log_shortage(shortage)
                if not self._make_room(lambda share: len(share.connections)):
                    # The client still waits to be accepted, and would wake the loop at once.
                    self._selector.unregister(listener)
                    self._paused.append(listener)
                return
            try:
                self._add(sock, address)
            except MemoryError as exc:
                sock.close()
                self._log_shortage(shortage_of(exc))
            except OSError as exc:
                log.debug("a connection broke while it was accepted: %s", exc)
                sock.close()

    def _log_shortage(self, shortage: str | None) -> None:
        """Log, at most once in a while, what is missing for new connections."""
        if monotonic() >= self._next_shortage_log:
            self._next_shortage_log = monotonic() + _SHORTAGE_LOG_S
            log.error("connections cannot be accepted: %s", shortage)

    def _add(self, sock: socket.socket, address: Any) -> None:
        while self._is_full() and self._make_room(lambda share: len(share.connections)):
            pass
        if self._is_full():
            sock.close()
            return
        sock.setblocking(False)
        # A Unix socket crosses no network.
        if self._certificate is not None and sock.family != socket.AF_UNIX:
            sock = self._certificate.context().wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
        network = network_of(address[0])
        share = self._shares.get(network)
        if share is None:
            share = self._shares[network] = Share(network)
        connection = Connection(self, share, sock, address)
        share.connections[connection] = None
        self._connections += 1
        self._guarded(connection, connection.update)
        self._poll(share)

    def _is_full(self) -> bool:
        # The next client may have a new address, whose selector takes a file as well.
        files = self._connections + len(self._shares) + 2
        return self._connections >= self._max_connections or files > self._max_files

    def _make_room(self, size: Callable[[Share], int]) -> bool:
        """Close the oldest connection that has no thread, of the largest share; return whether one was."""
        for share in sorted(self._shares.values(), key=size, reverse=True):
            if any(connection.make_room() for connection in share.connections):
                return True
        return False

    # --- for the connections ---------------------------------------------------------------------

    def ask(self, connection: Connection, request: h11.Request) -> None:
        """Have a thread ask the application whether it wants a request's body."""
        self.submit(connection, self._exchange(connection, request, b"", {IS_A_QUESTION: True}))

    def answer(self, connection: Connection, request: h11.Request, body: bytes | None) -> None:
        """Have a thread answer a request; without ``body`` the application reads it as it arrives."""
        self.submit(connection, self._exchange(connection, request, body, {}))

    def submit(self, connection: Connection, exchange: Exchange) -> None:
        """Have a thread begin an exchange, or continue a paused one."""
        self.pool.submit(connection.share, exchange)

    def _exchange(
        self, connection: Connection, request: h11.Request, body: bytes | None, extra: dict[str, Any]
    ) -> Exchange:
        environ = make_environ(connection, request, body, server=self._server)
        return Exchange(connection, self._application, environ | extra)

    def allow_origin(self, origin: str) -> dict[str, str]:
        """Return the CORS fields for an error that the loop sends to a page of ``origin``."""
        # Not loaded in the master, which imports this module as well.
        from reactorcide.web.cors import allowance

        return allowance(origin, self._cors_origins)

    def hold(self, more_bytes: int) -> None:
        """Add to the memory that connections take. Thread-safe."""
        with self._held_lock:
            self.held_bytes += more_bytes

    def forget(self, connection: Connection) -> None:
        """Remove a closed connection. For the loop only."""
        share = connection.share
        del share.connections[connection]
        self._connections -= 1
        self._poll(share)
        if not share.connections:
            del self._shares[share.network]
            share.selector.close()

    def defer(self, connection: Connection, callback: Callable[[], None]) -> None:
        """Have the loop call ``callback`` in its next turn. Thread-safe."""
        self._defer(partial(self._guarded, connection, callback))

    def _defer(self, callback: Callable[[], None]) -> None:
        self._deferred.append(callback)
        self.wake()

    def wake(self) -> None:
        """End the loop's waiting. Safe in a signal handler, and in any thread."""
        if not self._is_awake:
            self._is_awake = True
            try:
                os.write(self._wake_out, b"x")
            except BlockingIOError:
                return

    def _wake_up(self) -> None:
        os.read(self._wake_in, 4096)

    def _run_deferred(self) -> None:
        self._is_awake = False
        for _ in range(len(self._deferred)):
            self._deferred.popleft()()

    def _became_free(self, share: Share) -> None:
        self._defer(lambda: self._poll(share) if share.connections else None)
