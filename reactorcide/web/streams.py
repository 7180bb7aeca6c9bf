"""Long answers: their number is bounded, and each ends when its client disconnects."""

import errno
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from time import monotonic

from flask import Response, has_request_context, request

from reactorcide.domain.errors import Busy
from reactorcide.lib.notifier import Notifier

_LOOK_EVERY_S = 1.0


class StreamSlots:
    """Slots for followers and long polls, which must not occupy every thread of the service."""

    def __init__(self, slots: int) -> None:
        self._free = threading.BoundedSemaphore(slots) if slots else None

    def try_take(self) -> bool:
        """Take a slot for the current request if one is free; ``release`` returns it."""
        is_taken = self._free is not None and self._free.acquire(blocking=False)
        if is_taken and has_request_context():
            # The server has threads of their own for those that mostly wait.
            request.environ.get("reactorcide.takes_long", lambda: None)()
        return is_taken

    def release(self) -> None:
        """Return a slot."""
        if self._free is not None:
            self._free.release()


def stream(
    slots: StreamSlots, notifier: Notifier, chunks: Generator[bytes, None, None], mimetype: str = "text/plain"
) -> Response:
    """Return an answer that goes on until ``chunks`` ends, the client goes or the service stops.

    ``b""`` among the chunks means "nothing yet". Whether the client is still there is looked at about once a
    second; one that takes nothing the server gives up. Raises ``Busy`` when no place is free.
    """
    if not slots.try_take():
        raise Busy("too many followers at the moment; try again in a few seconds")
    has_gone: Callable[[], bool] = request.environ.get("reactorcide.has_gone", lambda: False)

    def body() -> Iterator[bytes]:
        # At once, so that the client has its headers before the first line comes.
        yield b""
        looked_at = monotonic()
        with closing(chunks):
            for chunk in chunks:
                if not chunk or monotonic() - looked_at >= _LOOK_EVERY_S:
                    looked_at = monotonic()
                    if has_gone():
                        # Breaks the connection off: an answer that ended properly would look complete.
                        raise ConnectionResetError(errno.ECONNRESET, "the client has gone")
                if chunk:
                    yield chunk
        if notifier.closed:
            raise ConnectionResetError(errno.ECONNRESET, "the service stops")

    response = Response(body(), mimetype=mimetype)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(slots.release)
    return response
