"""Slow maintenance of the engine, in a thread beside the worker."""

import logging
import threading
from collections.abc import Callable, Mapping

from reactorcide import crashpoints
from reactorcide.domain.errors import InfrastructureError, JobFailed
from reactorcide.runner import Runner
from reactorcide.threads import start_thread

log = logging.getLogger("reactorcide.worker")


class Background:
    """Runs maintenance of the engine, one call at a time, in a separate thread. Thread-safe.

    An engine may take minutes to remove a container. No claim and no job waits for that. Failures are not
    retried here: the worker's sweep adds the work again. ``start`` once; ``stop`` any number of times.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._changed = threading.Condition()
        self._calls: dict[str, Callable[[], None]] = {}
        """Pending work by name, in order; the first is being done."""
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_thread(self._loop, "background")

    def stop(self, deadline_s: float) -> None:
        """End after all work, or after ``deadline_s``; the next start does the rest."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(deadline_s)
            if self._thread.is_alive():
                log.warning("a container is still being removed; the next start goes on with it")

    def add(
        self, name: str, call: Callable[[], None], log_fields: Mapping[str, object] | None = None
    ) -> None:
        """Add work; a name that is pending or in progress is not added again."""

        def guarded() -> None:
            try:
                call()
            except (InfrastructureError, JobFailed) as exc:
                log.warning("%s: %s; it is tried again later", name, exc, extra=log_fields)
            except Exception:
                log.exception("%s failed unexpectedly", name, extra=log_fields)

        with self._changed:
            self._calls.setdefault(name, guarded)
            self._changed.notify_all()

    def remove(self, container_id: str, log_fields: Mapping[str, object]) -> None:
        """Remove a container later."""

        def remove() -> None:
            self._runner.remove(container_id)
            crashpoints.reached("container-removed")

        self.add(f"remove container {container_id}", remove, log_fields)

    def do_waiting(self) -> None:
        """Do all pending work in the caller's thread."""
        while True:
            with self._changed:
                if not self._calls:
                    return
                name, call = next(iter(self._calls.items()))
            call()
            with self._changed:
                del self._calls[name]

    def _loop(self) -> None:
        while True:
            self.do_waiting()
            with self._changed:
                if not self._calls:
                    if self._stopping:
                        return
                    self._changed.wait()
