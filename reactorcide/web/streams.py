"""Long answers: their number is bounded, and each ends when its client disconnects."""

import errno
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from time import monotonic

from flask import Response, has_request_context, request

from reactorcide.domain.errors import Busy
from reactorcide.lib.notifier import Notifier

NO_SLOT = (
    "too many followers and uploads at the moment, yours or all users' together; try again in a few seconds"
)

_LOOK_EVERY_S = 1.0


class StreamSlots:
    """Slots for followers, long polls and uploads, which must not occupy every thread of the service.

    One user gets at most half of them, so that nobody keeps all others out. Thread-safe.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._max_of_user = (slots + 1) // 2
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        """Slots by the id of their user."""

    def try_take(self, user_id: str) -> bool:
        """Take a slot for the current request of a user if one is free; ``release`` returns it."""
        with self._lock:
            if self._taken.total() >= self._slots or self._taken[user_id] >= self._max_of_user:
                return False
            self._taken[user_id] += 1
        if has_request_context():
            # The server has threads of their own for those that mostly wait.
            request.environ.get("reactorcide.takes_long", lambda: None)()
        return True

    def release(self, user_id: str) -> None:
        """Return a slot of a user."""
        with self._lock:
            self._taken[user_id] -= 1
            # No row for everybody who has ever followed something.
            self._taken += Counter()

    @contextmanager
    def required(self, user_id: str) -> Iterator[None]:
        """Hold a slot of a user while the body runs; raises ``Busy`` where the user gets none."""
        if not self.try_take(user_id):
            raise Busy(NO_SLOT)
        try:
            yield
        finally:
            self.release(user_id)

    @contextmanager
    def long_poll(self, user_id: str, wait_s: float) -> Iterator[float]:
        """Give the seconds that a request may wait: without a free slot none, and the client asks again."""
        if wait_s <= 0 or not self.try_take(user_id):
            yield 0.0
            return
        try:
            yield wait_s
        finally:
            self.release(user_id)


def stream(
    slots: StreamSlots,
    user_id: str,
    notifier: Notifier,
    chunks: Generator[bytes, None, None],
    mimetype: str = "text/plain",
) -> Response:
    """Return an answer that goes on until ``chunks`` ends, the client goes or the service stops.

    ``b""`` among the chunks means "nothing yet". Whether the client is still there is looked at about once a
    second; one that takes nothing the server gives up. Raises ``Busy`` when the user gets no slot.
    """
    if not slots.try_take(user_id):
        raise Busy(NO_SLOT)
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
    response.call_on_close(partial(slots.release, user_id))
    return response
