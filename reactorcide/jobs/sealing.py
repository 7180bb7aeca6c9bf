"""What is done with the object store after a job: its log is moved there, and a deleted one is removed."""

import logging

from reactorcide import crashpoints
from reactorcide.domain.errors import ObjectNotFound, ObjectStoreError, StoreError
from reactorcide.domain.jobs import attempt_of, attempt_prefix
from reactorcide.logs import LogStore
from reactorcide.objects import ObjectStore
from reactorcide.store import Store
from reactorcide.threads import Background

log = logging.getLogger("reactorcide.jobs")


class Sealing(Background):
    """Seals logs one after the other, in a thread of its own: a bucket that hangs delays no job's end.

    The removal of deleted jobs is added, too. Until they are sealed, logs are readable all the same. What
    fails, or is not done when the service stops, is among the ``left_over`` of the janitor's next round, here
    or at another service.
    """

    def __init__(self, store: Store, logs: LogStore, objects: ObjectStore) -> None:
        super().__init__(
            "seal logs",
            log,
            unfinished="logs are still being stored, or removed; the next start continues it",
        )
        self._store = store
        self._logs = logs
        self._objects = objects
        self._failed: set[str] = set()
        """Below which prefixes a failure was told already."""

    def soon(self, job_id: str, attempt: int) -> None:
        """Seal the log of an attempt that has ended."""
        prefix = attempt_prefix(job_id, attempt)
        self.add(f"seal {prefix}", lambda: self._seal(job_id, prefix), {"job_id": job_id})

    def left_over(self) -> None:
        """Seal the logs of all attempts that have ended; raises ``ObjectStoreError`` and ``StoreError``."""
        # Each has two files, the log and the index.
        for job_id, attempt in {attempt_of(file.key) for file in self._logs.unsealed()}:
            if self._store.attempts.log_is_closed(job_id, attempt):
                self.soon(job_id, attempt)

    def _seal(self, job_id: str, prefix: str) -> None:
        try:
            self._seal_or_remove(job_id, prefix)
            self._failed.discard(prefix)
        except (ObjectStoreError, ObjectNotFound, StoreError) as exc:
            if prefix not in self._failed:
                self._failed.add(prefix)
                log.warning("the log is not in the object store yet: %s", exc, extra={"job_id": job_id})
        crashpoints.reached("log-sealed")

    def _seal_or_remove(self, job_id: str, prefix: str) -> None:
        try:
            self._logs.seal(prefix)
        except (ObjectStoreError, ObjectNotFound):
            if not self._store.jobs.is_deleted(job_id):
                raise
        if self._store.jobs.is_deleted(job_id):
            # Its objects may have been removed before this one was stored.
            self._logs.delete(prefix)
            self._objects.delete(prefix)
