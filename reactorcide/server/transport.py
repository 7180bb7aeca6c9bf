"""A client's socket, with a buffer for output that the client has not read."""

import contextlib
import select
import selectors
import socket
import ssl
import struct
from time import monotonic

from reactorcide.server.pace import Pace

_RECEIVE_BYTES = 64 << 10
_TAKE_S = 30.0
"""How long a client may read nothing of an answer; see ``Pace``."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with which closing sends a reset, and drops what has not been sent."""
_SENDS_NO_MORE: int = getattr(select, "POLLRDHUP", 0)
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Transport:
    """A non-blocking socket with a buffer for output. Its owner calls it under a lock."""

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector, owner: object) -> None:
        """``selector`` reports events of ``sock`` with ``owner`` as their data."""
        self.events = 0
        """What the selector watches for."""
        self._sock = sock
        self._selector = selector
        self._owner: object = owner
        self._out = bytearray()
        self._pace = Pace(_TAKE_S)
        self._blocked_since: float | None = None

    def watch(self, events: int) -> None:
        """Watch for these events, and no others. For the loop only."""
        if events == self.events:
            return
        if not events:
            self._selector.unregister(self._sock)
        elif not self.events:
            self._selector.register(self._sock, events, self._owner)
        else:
            self._selector.modify(self._sock, events, self._owner)
        self.events = events

    def receive(self) -> bytes | None:
        """Return what has arrived: nothing at the end of the stream, ``None`` before anything has arrived."""
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
            while isinstance(self._sock, ssl.SSLSocket) and (pending := self._sock.pending()):
                # TLS has decrypted more, which the selector does not report.
                data += self._sock.recv(pending)
        except _WOULD_BLOCK:
            return None
        return data

    def queue(self, data: bytes) -> None:
        """Send this with the next ``flush``."""
        self._out += data

    def flush(self) -> None:
        """Send what the socket takes at once; raises ``OSError`` if the connection is broken."""
        sent_bytes = 0
        while self._out:
            try:
                count = self._sock.send(self._out)
            except _WOULD_BLOCK:
                break
            del self._out[:count]
            sent_bytes += count
        now = monotonic()
        self._pace.count(0 if self._blocked_since is None else now - self._blocked_since, sent_bytes)
        self._blocked_since = now if self._out else None

    @property
    def unsent_bytes(self) -> int:
        """The size of the output that waits for the client."""
        return len(self._out)

    @property
    def remaining_s(self) -> float:
        """How long the client has to take some of the output; without limit if there is none."""
        return self._pace.remaining_s if self._out else float("inf")

    def poll_end(self) -> int:
        """Return ``POLLHUP`` or ``POLLERR`` if the connection is gone, 0 if the client may send more.

        Another value means that it sends no more. Nothing is read: what arrived last, below TLS, may be part
        of another request, or not the end.
        """
        poll = select.poll()
        poll.register(self._sock, _SENDS_NO_MORE)
        return next((mask for _, mask in poll.poll(0)), 0)

    def end(self) -> None:
        """Send the end of the stream, and keep receiving; raises ``OSError`` if the connection is broken."""
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self._sock, ssl.SSLSocket):
                # Ends TLS too, without waiting for the client's reply.
                self._sock.unwrap()
        self._sock.shutdown(socket.SHUT_WR)

    def close(self, *, is_reset: bool) -> None:
        """Close the socket; with ``is_reset`` the client sees an error, and no end. For the loop only."""
        self.watch(0)
        if is_reset:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._out.clear()
        self._sock.close()
        # The owner has this transport: in a cycle, all that it holds would stay until garbage is collected.
        self._owner = None
