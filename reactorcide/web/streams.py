"""Long answers: their number is bounded, and each ends when its client disconnects."""

import errno
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from time import monotonic

from flask import Response, g, has_request_context, request

from reactorcide.domain.errors import Busy, Forbidden, NotFound, Unauthorized
from reactorcide.lib.notifier import Notifier

NO_SLOT = (
    "too many followers and uploads at the moment, yours or all users' together; try again in a few seconds"
)

READS_OBJECTS = "reads_objects"
"""In ``flask.g``: the function that returns the slot of a request that reads from a bucket; ``None`` if that
is done."""

_CHECK_EVERY_S = 1.0
_CHECK_CALLER_EVERY_S = 5.0


class StreamSlots:
    """Slots for followers, long polls and uploads, which must not occupy every thread of the service.

    A slot is of a share: ``(user_id,)``, or of a client without a token ``("anonymous", network)``. A share
    gets at most half of the slots, and one within a share half of these, so that nobody blocks all others.
    Thread-safe.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._changed = threading.Condition()
        self._taken: Counter[tuple[str, ...]] = Counter()

    def try_take(self, share: tuple[str, ...], wait_s: float = 0) -> bool:
        """Take a slot of a share for the current request if one is free; ``release`` returns it.

        If none is free, one is waited for ``wait_s``.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_free(share), wait_s):
                return False
            self._taken.update(_parts(share))
        if has_request_context():
            # The server has separate threads for requests that mostly wait.
            request.environ.get("reactorcide.takes_long", lambda: None)()
        return True

    def release(self, share: tuple[str, ...]) -> None:
        """Return a slot of a share."""
        with self._changed:
            self._taken.subtract(_parts(share))
            # Remove shares without a slot.
            self._taken += Counter()
            self._changed.notify_all()

    def _has_free(self, share: tuple[str, ...]) -> bool:
        most = self._slots
        for part in _parts(share):
            if self._taken[part] >= most:
                return False
            most = (most + 1) // 2
        return True

    @contextmanager
    def required(self, share: tuple[str, ...], problem: str = NO_SLOT) -> Iterator[None]:
        """Hold a slot of a share while the body runs; raises ``Busy`` with ``problem`` if there is none."""
        if not self.try_take(share):
            raise Busy(problem)
        try:
            yield
        finally:
            self.release(share)

    @contextmanager
    def long_poll(self, share: tuple[str, ...], wait_s: float) -> Iterator[float]:
        """Give the seconds that a request may wait: 0 without a free slot; then the client polls again."""
        if wait_s <= 0 or not self.try_take(share):
            yield 0.0
            return
        try:
            yield wait_s
        finally:
            self.release(share)


def _parts(share: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the shares that a slot of ``share`` counts for, from the one of all."""
    return [share[:length] for length in range(len(share) + 1)]


def stream(
    slots: StreamSlots,
    share: tuple[str, ...],
    notifier: Notifier,
    chunks: Generator[bytes, None, None],
    mimetype: str = "text/plain",
    *,
    check: Callable[[], object],
) -> Response:
    """Return an answer that lasts until ``chunks`` ends, the client disconnects or the service stops.

    ``b""`` among the chunks means "nothing yet". The client's connection is checked about once a second; the
    server closes one that reads nothing. It ends as well, within seconds, when ``check`` raises
    ``Unauthorized``, ``Forbidden`` or ``NotFound``. Raises ``Busy`` when the share has no free slot.
    """
    if not slots.try_take(share):
        raise Busy(NO_SLOT)
    release_objects: Callable[[], None] | None = g.get(READS_OBJECTS)
    if release_objects is not None:
        # It has a slot as a follower now, perhaps for hours.
        setattr(g, READS_OBJECTS, None)
        release_objects()
    has_closed: Callable[[], bool] = request.environ.get("reactorcide.client_has_closed", lambda: False)

    def body() -> Iterator[bytes]:
        # At once, so that the client gets its headers before the first line.
        yield b""
        checked_at = caller_checked_at = monotonic()
        with closing(chunks):
            for chunk in chunks:
                if not chunk or monotonic() - checked_at >= _CHECK_EVERY_S:
                    checked_at = monotonic()
                    # Abort the connection: an answer with a proper end would look complete.
                    if has_closed():
                        raise ConnectionResetError(errno.ECONNRESET, "the client has gone")
                    if checked_at - caller_checked_at >= _CHECK_CALLER_EVERY_S:
                        caller_checked_at = checked_at
                        try:
                            check()
                        except (Unauthorized, Forbidden, NotFound) as exc:
                            raise ConnectionResetError(errno.ECONNRESET, str(exc)) from exc
                if chunk:
                    yield chunk
        if notifier.closed:
            raise ConnectionResetError(errno.ECONNRESET, "the service stops")

    response = Response(body(), mimetype=mimetype)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(partial(slots.release, share))
    return response
