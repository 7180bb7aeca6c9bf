"""An object that is made when it is first used."""

import threading
from collections.abc import Callable


class Deferred:
    """A proxy for a collaborator that is created when it is first used. Thread-safe."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._object: object = None

    def __getattr__(self, name: str) -> object:
        with self._lock:
            if self._object is None:
                self._object = self._make()
        return getattr(self._object, name)
