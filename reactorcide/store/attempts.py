"""Attempts: created with the claim of a job, handed over, started and ended."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from reactorcide.domain.errors import IllegalTransition
from reactorcide.domain.jobs import FINAL, WAITING, AttemptRecord, Job, JobStatus, OpenAttempt, log_key
from reactorcide.domain.outputs import Outputs
from reactorcide.domain.workers import AttemptLease
from reactorcide.store import transitions
from reactorcide.store.connection import Connection, indexed_by
from reactorcide.store.jobs import Jobs
from reactorcide.store.models.jobs import AttemptRow, JobRow
from reactorcide.store.rows import COLUMN_LIST, as_dict
from reactorcide.store.sealed import SealedFields

_BEGIN_HAND_OVER = (
    "UPDATE attempt SET container_id = ?, container_started_at = ?, handing_over_at_ms = ?, log_offset = ? "
    "WHERE job_id = ? AND attempt = ? AND completed_at_ms IS NULL RETURNING attempt"
)
_INSERT = (
    "INSERT INTO attempt (job_id, attempt, worker_id, claimed_at_ms, heartbeat_at_ms, log_offset, "
    "log_truncated, lease_token, lost_after_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_START = "UPDATE attempt SET started_at_ms = ? WHERE job_id = ? AND attempt = ?"
_START_JOB = (
    "UPDATE job SET started_at_ms = ?, updated_at_ms = ? WHERE job_id = ? AND attempt = ? AND status = ?"
)
_ADOPT = (
    "UPDATE attempt SET worker_id = ?, heartbeat_at_ms = ? WHERE job_id = ? AND attempt = ? "
    "AND completed_at_ms IS NULL AND worker_id = ? AND heartbeat_at_ms = ? RETURNING attempt"
)
_ADOPT_JOB = "UPDATE job SET worker_id = ? WHERE job_id = ? AND attempt = ?"
_END = (
    "UPDATE attempt SET completed_at_ms = ?, exit_code = ?, error = ?, log_truncated = ? "
    "WHERE job_id = ? AND attempt = ? AND completed_at_ms IS NULL"
)
OPEN_COLUMNS = (
    "job_id, attempt, worker_id, heartbeat_at_ms, container_id, container_started_at, "
    "handing_over_at_ms, started_at_ms, log_offset"
)
# Those of other machines have their containers there.
_UNFINISHED = f"""
    SELECT {OPEN_COLUMNS}
    FROM attempt {indexed_by("attempt_open")} WHERE completed_at_ms IS NULL AND lease_token IS NULL
    """  # noqa: S608  # our own text
_FIND_OPEN = (
    f"SELECT {OPEN_COLUMNS} FROM attempt "  # noqa: S608  # as above
    "WHERE job_id = ? AND attempt = ? AND worker_id = ? AND completed_at_ms IS NULL"
)
_JOB_AT = f"SELECT {COLUMN_LIST} FROM job WHERE job_id = ? AND attempt = ?"  # noqa: S608  # as above


class Attempts:
    """Attempts of jobs. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection, jobs: Jobs, sealed: SealedFields) -> None:
        self._db = db
        self._jobs = jobs
        self._sealed = sealed

    def create(
        self,
        job_id: str,
        task_id: str,
        worker_id: str,
        *,
        now_ms: int,
        lease: AttemptLease | None = None,
        lost_after_s: float | None = None,
    ) -> Job:
        """Make a waiting job ``running`` with a new attempt: the fence that decides which worker runs it.

        ``lease`` is for a worker on another machine, ``lost_after_s`` for that of one of several services.
        Raises ``IllegalTransition`` if the job does not wait.
        """
        changes = {
            "worker_id": worker_id,
            "corndogs_task_id": task_id,
            "task_open": True,
            "log_truncated": False,
            "error": None,
        }

        def work(db: Any) -> dict[str, Any] | None:
            row = transitions.move(db, job_id, JobStatus.RUNNING, now_ms, WAITING, changes)
            if row is not None:
                attempt = row["attempt"]
                row["logs_object_key"] = log_key(job_id, attempt)
                db.execute_sql(
                    "UPDATE job SET logs_object_key = ? WHERE job_id = ?", (row["logs_object_key"], job_id)
                )
                leased = (None, lost_after_s) if lease is None else (lease.token, lease.lost_after_s)
                db.execute_sql(_INSERT, (job_id, attempt, worker_id, now_ms, now_ms, 0, False, *leased))
            return row

        row = self._db.write(work)
        if row is None:
            raise self._jobs.refused(job_id, JobStatus.RUNNING)
        return self._sealed.job(row)

    def begin_hand_over(
        self,
        job_id: str,
        attempt: int,
        container_id: str,
        *,
        container_started_at: str,
        now_ms: int,
        log_offset: int,
    ) -> None:
        """Record that an attempt's command is about to be handed over to its container.

        ``log_offset`` is where the container's output begins in the log. Raises ``IllegalTransition`` if the
        attempt has ended: another worker has ended it, and its command must not run.
        """
        values = (container_id, container_started_at, now_ms, log_offset, job_id, attempt)
        if self._db.write(lambda db: db.execute_sql(_BEGIN_HAND_OVER, values).fetchone()) is None:
            raise IllegalTransition(f"attempt {attempt} of job {job_id} has ended, so its command is not run")

    def start(self, job_id: str, attempt: int, *, now_ms: int) -> None:
        """Record that the command of an attempt runs."""

        def work(db: Any) -> None:
            db.execute_sql(_START, (now_ms, job_id, attempt))
            db.execute_sql(_START_JOB, (now_ms, now_ms, job_id, attempt, JobStatus.RUNNING))

        self._db.write(work)

    def end(
        self,
        job_id: str,
        attempt: int,
        target: JobStatus,
        *,
        now_ms: int,
        exit_code: int | None,
        error: str | None,
        log_truncated: bool = False,
        outputs: Outputs | None = None,
        job_changes: Mapping[str, object],
    ) -> Job | None:
        """Close an attempt and move its job from ``running`` to ``target``.

        If the job has been cancelled meanwhile only the attempt is closed, and ``None`` is returned. A closed
        attempt does not change, so repeating is safe.
        """

        changes = dict(job_changes)
        if outputs is not None:
            changes["outputs"] = self._sealed.seal_outputs(outputs, job_id)

        def work(db: Any) -> dict[str, Any] | None:
            db.execute_sql(_END, (now_ms, exit_code, error, log_truncated, job_id, attempt))
            if log_truncated:
                # Separate from the status, which a cancel may have made final already.
                db.execute_sql(
                    "UPDATE job SET log_truncated = ? WHERE job_id = ? AND attempt = ?",
                    (True, job_id, attempt),
                )
            return transitions.move(db, job_id, target, now_ms, {JobStatus.RUNNING}, changes, attempt=attempt)

        row = self._db.write(work)
        return None if row is None else self._sealed.job(row)

    def heartbeat(self, attempts: Iterable[tuple[str, int]], *, now_ms: int) -> None:
        """Write the heartbeat of a worker's attempts."""
        held = list(attempts)

        def work(db: Any) -> None:
            for job_id, attempt in held:
                db.execute_sql(
                    "UPDATE attempt SET heartbeat_at_ms = ? WHERE job_id = ? AND attempt = ?",
                    (now_ms, job_id, attempt),
                )

        self._db.write(work)

    def adopt(
        self,
        job_id: str,
        attempt: int,
        worker_id: str,
        *,
        from_worker_id: str,
        heartbeat_at_ms: int,
        now_ms: int,
    ) -> bool:
        """Assign an attempt to a worker, or write its heartbeat if it is the worker's already.

        Returns whether the attempt was unchanged since ``unfinished``; otherwise nothing is written.
        """

        def work(db: Any) -> bool:
            values = (worker_id, now_ms, job_id, attempt, from_worker_id, heartbeat_at_ms)
            if db.execute_sql(_ADOPT, values).fetchone() is None:
                return False
            if worker_id != from_worker_id:
                db.execute_sql(_ADOPT_JOB, (worker_id, job_id, attempt))
            return True

        return self._db.write(work)

    def unfinished(self) -> list[OpenAttempt]:
        """Return every attempt that has not ended and is not leased to a worker on another machine."""
        with self._db.read() as db:
            attempts = db.execute_sql(_UNFINISHED).fetchall()
            return [OpenAttempt(job, *rest) for job, rest in with_jobs(db, self._sealed, attempts)]

    def find_open(self, job_id: str, attempt: int, worker_id: str) -> OpenAttempt | None:
        """Return an attempt of a worker; ``None`` if it has ended, or is another's."""
        with self._db.read() as db:
            rows = db.execute_sql(_FIND_OPEN, (job_id, attempt, worker_id)).fetchall()
            return next((OpenAttempt(job, *rest) for job, rest in with_jobs(db, self._sealed, rows)), None)

    def of_job(self, job_id: str) -> list[AttemptRecord]:
        """Return every attempt of a job, oldest first."""
        names = [item.name for item in fields(AttemptRecord)]
        with self._db.read() as db:
            rows = (
                AttemptRow.select(*(getattr(AttemptRow, name) for name in names))
                .where(AttemptRow.job_id == job_id)
                .order_by(AttemptRow.attempt)
                .dicts()
                .execute(db)
            )
            return [AttemptRecord(**row) for row in rows]

    def log_is_closed(self, job_id: str, attempt: int) -> bool:
        """Return whether an attempt's log is complete and closed."""
        with self._db.read() as db:
            for (completed_at_ms,) in (
                AttemptRow.select(AttemptRow.completed_at_ms)
                .where((AttemptRow.job_id == job_id) & (AttemptRow.attempt == attempt))
                .tuples()
                .execute(db)
            ):
                return completed_at_ms is not None
            for job_status, job_attempt in (
                JobRow.select(JobRow.status, JobRow.attempt)
                .where(JobRow.job_id == job_id)
                .tuples()
                .execute(db)
            ):
                # Not started: its log is closed and empty if the job has ended, or has a later attempt.
                return JobStatus(job_status) in FINAL or job_attempt > attempt
        return True


def with_jobs(db: Any, sealed: SealedFields, attempts: list[Any]) -> Iterator[tuple[Job, Any]]:
    """Yield the job of each attempt, and what follows job and number in the attempt's row.

    Jobs are at their current attempts; others are left out.
    """
    for attempt in attempts:
        # Queries of their own, so that none can scan all jobs.
        row = db.execute_sql(_JOB_AT, attempt[:2]).fetchone()
        if row is not None:
            yield sealed.job(as_dict(row)), attempt[2:]
