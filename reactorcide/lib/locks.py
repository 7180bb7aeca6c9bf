"""A lock that is handed on in the order in which it was asked for."""

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
        """Take the lock unless somebody has it; what was taken is given back with ``__exit__``."""
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
                # The lock stays held and changes hands, so that nobody can slip in between.
                self._waiting.popleft().release()
            else:
                self._held = False
