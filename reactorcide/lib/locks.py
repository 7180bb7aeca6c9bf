"""A fair lock."""

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """A non-reentrant mutual exclusion lock, first come first served.

    ``threading.Lock`` promises no order: under load a thread that releases and takes it again at once
    can starve the others.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def enter_if_free(self) -> bool:
        """Take the lock if it is free, and return whether it was taken; ``__exit__`` releases it."""
        with self._guard:
            if self._held:
                return False
            self._held = True
            return True

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        with self._guard:
            if self._waiting:
                # The lock stays held and passes to the next thread, so that no other can take it in between.
                self._waiting.popleft().release()
            else:
                self._held = False
