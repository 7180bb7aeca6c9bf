"""Moving the logs of ended attempts into the object store."""

import logging
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

from reactorcide import crashpoints
from reactorcide.domain.errors import ObjectNotFound, ObjectStoreError, StoreError
from reactorcide.domain.jobs import attempt_of, attempt_prefix
from reactorcide.logs import LogStore
from reactorcide.objects import ObjectStore
from reactorcide.store import Store
from reactorcide.threads import start_thread

log = logging.getLogger("reactorcide.jobs")


class Sealing:
    """Seals logs one after the other, in a thread of its own: a bucket that hangs delays no job's end.

    Until then they are readable all the same. What fails, or is not done when the service stops, is among the
    ``left_over`` of the janitor's next round, here or at another service. ``soon`` is thread-safe.
    """

    def __init__(self, store: Store, logs: LogStore, objects: ObjectStore) -> None:
        self._store = store
        self._logs = logs
        self._objects = objects
        self._waiting: SimpleQueue[tuple[str, int] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._failed: set[tuple[str, int]] = set()
        """The attempts of which a failure was told already."""

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_thread(self._loop, "seal logs")

    def stop(self, deadline_s: float) -> None:
        """Seal what waits, for at most ``deadline_s``."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(deadline_s)
            if self._thread.is_alive():
                log.warning("logs are still being stored; the next start continues it")

    def soon(self, job_id: str, attempt: int) -> None:
        """Seal the log of an attempt that has ended."""
        self._waiting.put((job_id, attempt))

    def left_over(self) -> None:
        """Seal the logs of all attempts that have ended; raises ``ObjectStoreError`` and ``StoreError``."""
        if not self._waiting.empty():
            # A slow object store would get the same ones again and again.
            return
        # Each has two files, the log and the index.
        for job_id, attempt in {attempt_of(file.key) for file in self._logs.unsealed()}:
            if self._store.attempts.log_is_closed(job_id, attempt):
                self.soon(job_id, attempt)

    def do_waiting(self) -> None:
        """Seal what waits, in the caller's thread."""
        with suppress(Empty):
            while (ended := self._waiting.get_nowait()) is not None:
                self._seal(*ended)

    def _loop(self) -> None:
        while (ended := self._waiting.get()) is not None:
            self._seal(*ended)

    def _seal(self, job_id: str, attempt: int) -> None:
        try:
            self._seal_or_remove(job_id, attempt_prefix(job_id, attempt))
            self._failed.discard((job_id, attempt))
        except (ObjectStoreError, ObjectNotFound, StoreError) as exc:
            if (job_id, attempt) not in self._failed:
                self._failed.add((job_id, attempt))
                log.warning("the log is not in the object store yet: %s", exc, extra={"job_id": job_id})
        except Exception:
            log.exception("sealing failed unexpectedly", extra={"job_id": job_id})
        crashpoints.reached("log-sealed")

    def _seal_or_remove(self, job_id: str, prefix: str) -> None:
        problem = None
        try:
            self._logs.seal(prefix)
        except (ObjectStoreError, ObjectNotFound) as exc:
            problem = exc
        job = self._store.jobs.find(job_id)
        if job is None or job.deleted:
            # Its objects may have been removed before this one was stored.
            self._logs.delete(prefix)
            self._objects.delete(prefix)
        elif problem is not None:
            raise problem
