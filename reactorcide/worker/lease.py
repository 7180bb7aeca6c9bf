"""The lease of an attempt's task in the queue."""

import threading
from dataclasses import replace

from reactorcide.corndogs.task import Task
from reactorcide.jobs import JobContext, lifecycle, tasks


class Lease:
    """Holds the task of one attempt until it is closed. Thread-safe.

    ``task`` is ``None`` where the job's row names none; then there is nothing to hold.
    """

    def __init__(self, context: JobContext, task: Task | None) -> None:
        self._context = context
        self._task = task
        # A renewal that comes late would bring a closed task back.
        self._lock = threading.Lock()

    def renew(self, timeout_s: float) -> None:
        """Have the task come back by itself only after ``timeout_s`` from now; raises ``CorndogsError``."""
        with self._lock:
            if self._task is not None:
                held = replace(self._task, current_state=tasks.TASK_CLAIMED)
                tasks.lease(self._context.corndogs, held, timeout_s)

    def close(self, job_id: str) -> None:
        """Renew it no more, and close the task of the job, as that is now; where that fails a sweep does it.

        Raises ``NotFound`` where the job is gone.
        """
        with self._lock:
            self._task = None
        lifecycle.close_task(self._context, self._context.store.jobs.get(job_id))
