"""Answers that take long: a bounded number of them, ended as soon as nobody listens."""

import errno
import select
import socket
import struct
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from time import monotonic

from flask import Response, request

from reactorcide.domain.errors import Busy
from reactorcide.signals import Signals

_CLOSED = getattr(select, "POLLRDHUP", select.POLLHUP)
"""Linux tells the end of what the other side sends by a name of its own, other systems as a hang-up."""
_LOOK_EVERY_S = 1.0
_MOST_SEND_S = 30
"""How long a client that is there may take nothing, as where somebody stops a terminal."""


class StreamSlots:
    """Places for followers and long polls, so that they never take every thread of the service."""

    def __init__(self, slots: int) -> None:
        self._free = threading.BoundedSemaphore(slots) if slots else None

    def try_take(self) -> bool:
        """Take a place if one is free; give it back with ``release``."""
        return self._free is not None and self._free.acquire(blocking=False)

    def release(self) -> None:
        """Give a place back."""
        if self._free is not None:
            self._free.release()


def stream(
    slots: StreamSlots, signals: Signals, chunks: Generator[bytes, None, None], mimetype: str = "text/plain"
) -> Response:
    """Return an answer that goes on until ``chunks`` ends, the client goes or the service stops.

    ``b""`` among the chunks means "nothing yet". The client's socket is looked at about once a second, and a
    client that takes nothing for long is given up. Raises ``Busy`` when no place is free.
    """
    if not slots.try_take():
        raise Busy("too many followers just now; come back in a few seconds")
    client: socket.socket | None = request.environ.get("gunicorn.socket")
    if client is not None:
        # The kernel's own limit, for what is sent is so by gunicorn, which knows none.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _MOST_SEND_S, 0))

    def body() -> Iterator[bytes]:
        # At once, so that the client has its headers before the first line comes.
        yield b""
        looked_at = monotonic()
        with closing(chunks):
            for chunk in chunks:
                if client is not None and (not chunk or monotonic() - looked_at >= _LOOK_EVERY_S):
                    looked_at = monotonic()
                    if _has_hung_up(client):
                        return
                if chunk:
                    yield chunk
        if signals.closed:
            # Breaks the connection off: an answer that ended properly would look complete.
            raise ConnectionResetError(errno.ECONNRESET, "the service stops")

    response = Response(body(), mimetype=mimetype)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(slots.release)
    return response


def _has_hung_up(client: socket.socket) -> bool:
    """Tell whether the other side has closed; writing alone would notice only after buffers fill.

    Nothing is read: below TLS, what has come last need not be the request's, nor be the end.
    """
    poll = select.poll()
    poll.register(client, _CLOSED)
    return bool(poll.poll(0))
