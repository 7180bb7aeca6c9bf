"""The tasks of jobs in Corndogs: which ones to submit, look up and close."""

from collections.abc import Sequence
from typing import Any

from reactorcide.domain.errors import NotFound
from reactorcide.domain.jobs import FINAL, Job, JobStatus
from reactorcide.store import transitions
from reactorcide.store.connection import Connection, indexed_by
from reactorcide.store.rows import as_cut_dict, cut_list
from reactorcide.store.sealed import SealedFields

SWEEP_CHARS = 1000
"""Maximum length of texts in jobs for a sweep, because a whole definition can take megabytes."""
_MAX_DELAY_MS = 120_000
"""Maximum delay of a submission."""

# A time in the future is ignored, so that a clock that was set back delays nothing.
_QUEUED_LONG = f"""
    SELECT job_id FROM job {indexed_by("job_status")}
    WHERE status = ? AND (queued_at_ms < ? OR queued_at_ms > ?) AND job_id > ?
    ORDER BY job_id LIMIT ?
    """  # noqa: S608  # our own text
_TO_SUBMIT = f"""
    SELECT {cut_list(SWEEP_CHARS)} FROM job {indexed_by("job_status")}
    WHERE status IN (?, ?) AND (next_submit_at_ms <= ? OR next_submit_at_ms > ?)
    ORDER BY next_submit_at_ms LIMIT ?
    """  # noqa: S608  # as above
_TO_CLOSE = f"""
    SELECT job_id FROM job {indexed_by("job_task_open")}
    WHERE task_open AND status IN (?, ?, ?) AND job_id > ? AND NOT EXISTS
        (SELECT 1 FROM attempt WHERE attempt.job_id = job.job_id AND attempt.completed_at_ms IS NULL)
    ORDER BY job_id LIMIT ?
    """  # noqa: S608  # as above
_CLOSED = "UPDATE job SET task_open = ? WHERE job_id = ? AND corndogs_task_id = ?"
_SUBMIT_INTERRUPTED = "UPDATE job SET next_submit_at_ms = 0 WHERE status = ? AND attempt = 1"


class Tasks:
    """Queries of the sweep on jobs and their tasks. Thread-safe.

    Jobs that come by the hundred are cut as for a list.
    """

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def closed(self, job_id: str, task_id: str) -> None:
        """Record that the job has no live task in Corndogs."""
        self._db.write(lambda db: db.execute_sql(_CLOSED, (False, job_id, task_id)))

    def submit_interrupted(self) -> None:
        """Make interrupted submissions of the previous service due at once.

        Only for the start of a service: in a running one such submissions are in progress.
        """
        self._db.write(lambda db: db.execute_sql(_SUBMIT_INTERRUPTED, (JobStatus.SUBMITTED,)))

    def forget(self, job_id: str, task_id: str, reason: str, *, now_ms: int) -> Job | None:
        """Submit a queued job again, because Corndogs has lost its task.

        ``None`` if the job is no longer queued with that task; then nothing has changed.
        """
        changes = {
            "corndogs_task_id": None,
            "task_open": False,
            "queued_at_ms": None,
            "next_submit_at_ms": 0,
            "error": reason,
        }
        row = self._db.write(
            lambda db: transitions.move(
                db, job_id, JobStatus.SUBMITTED, now_ms, {JobStatus.QUEUED}, changes, task_id=task_id
            )
        )
        return None if row is None else self._sealed.job(row)

    def forget_all(self, *, now_ms: int) -> None:
        """Submit every queued job again, because the queue with their tasks is gone."""
        changes = {"corndogs_task_id": None, "task_open": False, "next_submit_at_ms": 0}

        def work(db: Any) -> None:
            queued = db.execute_sql("SELECT job_id FROM job WHERE status = ?", (JobStatus.QUEUED,)).fetchall()
            for (job_id,) in queued:
                transitions.move(db, job_id, JobStatus.SUBMITTED, now_ms, {JobStatus.QUEUED}, changes)

        self._db.write(work)

    def to_submit(self, *, now_ms: int, limit: int = 100) -> list[tuple[Job, int]]:
        """Return waiting jobs whose submission to Corndogs is due, with their failures in a row."""
        values = (JobStatus.SUBMITTED, JobStatus.SUBMIT_FAILED, now_ms, now_ms + _MAX_DELAY_MS, limit)
        with self._db.read() as db:
            rows = [as_cut_dict(row) for row in db.execute_sql(_TO_SUBMIT, values)]
        return [(self._sealed.job(row), row["submit_failures"]) for row in rows]

    def next_submit_at_ms(self, job_id: str) -> int:
        """Return when a job that Corndogs does not have is submitted again; raises ``NotFound``."""
        with self._db.read() as db:
            for (at_ms,) in db.execute_sql("SELECT next_submit_at_ms FROM job WHERE job_id = ?", (job_id,)):
                return int(at_ms)
        raise NotFound(f"there is no job {job_id}")

    def queued_long(self, *, before_ms: int, now_ms: int, after: str, limit: int) -> list[Job]:
        """Return jobs that were queued before a time, in order of their ids from the one ``after`` it."""
        return self._jobs(_QUEUED_LONG, (JobStatus.QUEUED, before_ms, now_ms, after, limit))

    def to_close(self, *, after: str = "", limit: int = 100) -> list[Job]:
        """Return ended jobs whose task is still in Corndogs, by id from the one after ``after``.

        Without those with an unfinished attempt: its worker closes the task.
        """
        return self._jobs(_TO_CLOSE, (*sorted(FINAL), after, limit))

    def _jobs(self, job_ids: str, values: Sequence[object]) -> list[Job]:
        """Return the jobs with the ids of a query, in order of their ids."""
        # The query returns only ids, because the rows may be large.
        sql = f"SELECT {cut_list(SWEEP_CHARS)} FROM job WHERE job_id IN ({job_ids}) ORDER BY job_id"  # noqa: S608  # our own text
        with self._db.read() as db:
            return [self._sealed.job(as_cut_dict(row)) for row in db.execute_sql(sql, values)]
