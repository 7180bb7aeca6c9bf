"""A client's connection: requests of several threads at once, each with its answer by id."""

import random
import select
import socket
import threading
import time
from contextlib import suppress

from reactorcide.corndogs.csil.cbor import Malformed
from reactorcide.corndogs.csil.envelope import (
    HEADER_BYTES,
    SERVICE,
    Request,
    Response,
    decode_response,
    encode_request,
)
from reactorcide.domain.errors import CorndogsUnavailable
from reactorcide.threads import start_thread

# The most that a released server accepts and sends by default: a payload of 16 MiB, and what is around it.
_MAX_FRAME_BYTES = 17 << 20
_CHUNK_BYTES = 256 << 10
# A frame that has begun to arrive must be there by then.
_FRAME_DEADLINE_S = 10.0
# A server carries out at most 256 requests of one connection at a time, and then reads no more of it.
_MAX_ABANDONED = 256
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.05, 1.0
_CONNECT_TIMEOUT_S = 2.0

_CLOSED = "the connection to Corndogs was closed"
_LOST = "the connection to Corndogs was lost"
_OTHER_PROTOCOL = (
    "Corndogs does not answer over CSIL; check that it runs and can be reached, and its version: "
    "0.3 and earlier have addresses with grpc://"
)


class TooLate(CorndogsUnavailable):
    """There was no answer before the deadline."""

    def __init__(self) -> None:
        super().__init__(
            "Corndogs does not answer (DEADLINE_EXCEEDED); check that it runs and can be reached"
        )


class ReconnectingConnection:
    """One connection at a time to ``host:port``, made by the first call that needs it. Thread-safe.

    After a connection without an answer calls fail at once, until a pause is over that grows from 50 ms to
    a second.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._is_closed = False
        self._pause_s = _MIN_PAUSE_S

    def call(self, operation: str, payload: bytes, deadline_s: float) -> Response:
        """Send a request and return its response.

        Raises ``CorndogsUnavailable``, which is a ``TooLate`` at the deadline. A response that comes later is
        dropped. Whether the server has carried out a request that it did not answer is not known.
        """
        end_s = time.monotonic() + deadline_s
        return self._connected().call(operation, payload, end_s)

    def close(self) -> None:
        """End the connection, and with it the calls that run; safe to repeat."""
        with self._lock:
            self._is_closed = True
        if self._connection is not None:
            self._connection.close(_CLOSED)
            self._connection.wait_closed()

    def _connected(self) -> "_Connection":
        with self._lock:
            if self._is_closed:
                raise CorndogsUnavailable(_CLOSED)
            last = self._connection
            if last is not None and last.problem is None:
                return last
            if last is None or last.has_answered:
                self._pause_s = _MIN_PAUSE_S
            elif time.monotonic() < last.lost_at_s + self._pause_s:
                raise CorndogsUnavailable(last.problem or _LOST)
            else:
                # Not exactly twice as long: all clients would come back at the same moment.
                factor = random.uniform(1.6, 2.0)  # noqa: S311  # no secret
                self._pause_s = min(factor * self._pause_s, _MAX_PAUSE_S)
            self._connection = _Connection(self._address)
            return self._connection


class _Call:
    """A request under way. ``response`` is set before ``done`` is, or never if the connection is lost."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.response: Response | None = None


class _Connection:
    """One TCP connection, with a thread that connects and reads.

    ``problem`` says why it is lost, since ``lost_at_s``; then it stays lost.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self.problem: str | None = None
        self.lost_at_s = 0.0
        self.has_answered = False
        # Set when the socket is connected, or the connection lost.
        self._has_connected = threading.Event()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._last_id = 0
        self._waiting: dict[int, _Call] = {}
        self._abandoned = 0
        self._buffer = bytearray()
        self._thread = start_thread(self._run, "corndogs-csil")

    def call(self, operation: str, payload: bytes, end_s: float) -> Response:
        """Send a request and return its response. Raises ``CorndogsUnavailable``."""
        if not self._has_connected.wait(_remaining_s(end_s)):
            raise TooLate
        call = _Call()
        with self._lock:
            if self.problem is not None:
                raise CorndogsUnavailable(self.problem)
            self._last_id += 1
            number = self._last_id
            self._waiting[number] = call
        try:
            self._send(encode_request(Request(SERVICE, operation, payload, number)), end_s)
        except CorndogsUnavailable:
            with self._lock:
                self._waiting.pop(number, None)
            raise
        if not call.done.wait(_remaining_s(end_s)):
            self._give_up(number)
        if call.response is not None:
            return call.response
        raise TooLate if self.problem is None else CorndogsUnavailable(self.problem)

    def close(self, problem: str) -> None:
        """End the connection and all calls on it; safe to repeat."""
        with self._lock:
            if self.problem is not None:
                return
            self.problem, self.lost_at_s = problem, time.monotonic()
            waiting, self._waiting = self._waiting, {}
        self._has_connected.set()
        if self._socket is not None:
            # Wakes the thread that reads, which closes the socket.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        for call in waiting.values():
            call.done.set()

    def wait_closed(self) -> None:
        """Wait until the thread of a closed connection has ended, unless it is still connecting."""
        if self._socket is not None:
            self._thread.join()

    def _give_up(self, number: int) -> None:
        with self._lock:
            if self._waiting.pop(number, None) is None:
                return
            self._abandoned += 1
            is_stuck = self._abandoned > _MAX_ABANDONED
        if is_stuck:
            self.close("Corndogs has stopped to answer; the connection was closed")

    def _send(self, frame: bytes, end_s: float) -> None:
        if not self._sending.acquire(timeout=_remaining_s(end_s)):
            raise TooLate
        try:
            if self.problem is not None or self._socket is None:
                raise CorndogsUnavailable(self.problem or _LOST)
            unsent = memoryview(frame)
            while unsent:
                if not _is_ready(self._socket, select.POLLOUT, end_s):
                    if len(unsent) < len(frame):
                        # Nothing else can be sent after half a request.
                        self.close("Corndogs has stopped to read; the connection was closed")
                    raise TooLate
                with suppress(BlockingIOError):
                    unsent = unsent[self._socket.send(unsent) :]
        except OSError as exc:
            self.close(self._lost(exc.strerror or str(exc)))
            raise CorndogsUnavailable(self.problem or _LOST) from exc
        finally:
            self._sending.release()

    def _run(self) -> None:
        problem = _LOST
        try:
            try:
                connected = _connect(self._address)
            except OSError as exc:
                problem = (
                    f"Corndogs does not answer ({exc.strerror or exc}); check that it runs and can be reached"
                )
                return
            with self._lock:
                self._socket = connected
                is_open = self.problem is None
            self._has_connected.set()
            while is_open:
                self._deliver(decode_response(self._frame(connected)))
        except EOFError:
            problem = self._lost("the server closed it")
        except OSError as exc:
            problem = self._lost(exc.strerror or str(exc))
        except Malformed as exc:
            problem = self._lost(str(exc))
        finally:
            self.close(problem)
            # Not while another thread sends: its number may be another file's then.
            with self._sending:
                if self._socket is not None:
                    self._socket.close()

    def _deliver(self, response: Response) -> None:
        with self._lock:
            call = None if response.id is None else self._waiting.pop(response.id, None)
            if call is not None:
                self.has_answered = True
                call.response = response
            else:
                # One that comes too late; of these there are no more than requests were given up.
                self._abandoned -= 1
                if self._abandoned < 0 and self.problem is None:
                    raise Malformed("an answer to no request")
        if call is not None:
            call.done.set()

    def _frame(self, connected: socket.socket) -> bytes:
        """Return the next frame without its header. Raises ``EOFError``, ``OSError`` and ``Malformed``."""
        self._receive(connected, 1, None)
        end_s = time.monotonic() + _FRAME_DEADLINE_S
        self._receive(connected, HEADER_BYTES, end_s)
        size = int.from_bytes(self._take(HEADER_BYTES))
        if size > _MAX_FRAME_BYTES:
            raise Malformed(f"an answer of {size} bytes")
        self._receive(connected, size, end_s)
        return self._take(size)

    def _receive(self, connected: socket.socket, size: int, end_s: float | None) -> None:
        """Read until the buffer has so many bytes."""
        while len(self._buffer) < size:
            if not _is_ready(connected, select.POLLIN, end_s):
                raise Malformed("half an answer")
            with suppress(BlockingIOError):
                chunk = connected.recv(_CHUNK_BYTES)
                if not chunk:
                    raise EOFError
                self._buffer += chunk

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _lost(self, reason: str) -> str:
        return f"{_LOST}: {reason}" if self.has_answered else _OTHER_PROTOCOL


def _connect(address: tuple[str, int]) -> socket.socket:
    connected = socket.create_connection(address, _CONNECT_TIMEOUT_S)
    connected.setblocking(False)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Give up a host that vanished silently after 10 s, not after the kernel's quarter of an hour.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000)
    return connected


def _is_ready(connected: socket.socket, event: int, end_s: float | None) -> bool:
    poll = select.poll()
    poll.register(connected, event)
    return bool(poll.poll(None if end_s is None else 1000 * _remaining_s(end_s)))


def _remaining_s(end_s: float) -> float:
    return max(end_s - time.monotonic(), 0.0)
