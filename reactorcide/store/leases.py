"""Attempts that are leased to workers on other machines."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from reactorcide.domain.jobs import JobStatus, OpenAttempt
from reactorcide.domain.workers import AttemptLease, LeasedAttempt
from reactorcide.store.attempts import OPEN_COLUMNS, with_jobs
from reactorcide.store.connection import Connection, indexed_by
from reactorcide.store.sealed import SealedFields

_COLUMNS = f"{OPEN_COLUMNS}, claimed_at_ms, lease_token, lost_after_s"
_ONE = f"""
    SELECT {_COLUMNS} FROM attempt
    WHERE job_id = ? AND attempt = ? AND worker_id = ? AND lease_token = ? AND completed_at_ms IS NULL
    """  # noqa: S608  # our own text
_ENDED = (
    "SELECT 1 FROM attempt WHERE job_id = ? AND attempt = ? AND worker_id = ? AND lease_token = ? "
    "AND completed_at_ms IS NOT NULL AND end_sha256 = ?"
)
_OF_OPEN = (
    f"FROM attempt {indexed_by('attempt_open')} WHERE completed_at_ms IS NULL AND lease_token IS NOT NULL"
)
_OPEN = f"SELECT {_COLUMNS} {_OF_OPEN}"
_HEARTBEATS = (
    "SELECT job_id, attempt, worker_id, heartbeat_at_ms, lost_after_s, "  # noqa: S608  # our own text
    "lease_token IS NOT NULL AND handing_over_at_ms IS NULL AND heartbeat_at_ms = claimed_at_ms "
    f"FROM attempt {indexed_by('attempt_open')} "
    "WHERE completed_at_ms IS NULL AND lost_after_s IS NOT NULL"
)
_RUNNING = f"SELECT worker_id, job_id {_OF_OPEN}"
_CANCELLED_RUNNING = f"SELECT job_id {_OF_OPEN} AND job_id IN (SELECT job_id FROM job WHERE status = ?)"  # noqa: S608  # as above
_REPORT_END = (
    "UPDATE attempt SET end_sha256 = ? WHERE job_id = ? AND attempt = ? AND lease_token = ? "
    "AND ((completed_at_ms IS NULL AND end_sha256 IS NULL) OR end_sha256 = ?) RETURNING attempt"
)


class Heartbeat(NamedTuple):
    """When an attempt's worker was heard of last."""

    job_id: str
    attempt: int
    worker_id: str
    at_ms: int
    lost_after_s: float
    is_untouched: bool
    """Of a worker on another machine: whether it has done nothing with it yet, not even renewed its lease."""


class Leases:
    """Leased attempts. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def find(self, job_id: str, attempt: int, worker_id: str, token: str) -> LeasedAttempt | None:
        """Return an attempt of a worker by its lease's token; ``None`` if it has ended, or is another's."""
        found = self._leased(_ONE, (job_id, attempt, worker_id, token))
        return found[0] if found else None

    def has_ended(self, job_id: str, attempt: int, worker_id: str, token: str, end_sha256: bytes) -> bool:
        """Return whether an attempt has ended as its worker has reported."""
        values = (job_id, attempt, worker_id, token, end_sha256)
        with self._db.read() as db:
            return db.execute_sql(_ENDED, values).fetchone() is not None

    def unfinished(self, worker_id: str | None = None) -> list[LeasedAttempt]:
        """Return the attempts of a worker, or of all, that have not ended."""
        if worker_id is None:
            return self._leased(_OPEN, ())
        return self._leased(f"{_OPEN} AND worker_id = ?", (worker_id,))

    def heartbeats(self) -> list[Heartbeat]:
        """Return the last heartbeat of each open attempt.

        These are of workers on other machines, and of services that share the database.
        """
        with self._db.read() as db:
            rows = db.execute_sql(_HEARTBEATS).fetchall()
        return [
            Heartbeat(job_id, attempt, worker_id, at_ms, lost_after_s, is_untouched=bool(is_untouched))
            for job_id, attempt, worker_id, at_ms, lost_after_s, is_untouched in rows
        ]

    def running(self) -> list[tuple[str, str]]:
        """Return the worker and the job of each attempt that has not ended."""
        with self._db.read() as db:
            rows = db.execute_sql(_RUNNING).fetchall()
        return [(str(worker_id), str(job_id)) for worker_id, job_id in rows]

    def cancelled(self, job_ids: Collection[str]) -> set[str]:
        """Return those of some jobs that are cancelled."""
        if not job_ids:
            return set()
        marks = ", ".join("?" * len(job_ids))
        sql = f"SELECT job_id FROM job WHERE job_id IN ({marks}) AND status = ?"  # noqa: S608  # marks only
        with self._db.read() as db:
            rows = db.execute_sql(sql, (*job_ids, JobStatus.CANCELLED)).fetchall()
        return {str(job_id) for (job_id,) in rows}

    def cancelled_running(self) -> list[str]:
        """Return the cancelled jobs whose attempts have not ended."""
        with self._db.read() as db:
            rows = db.execute_sql(_CANCELLED_RUNNING, (JobStatus.CANCELLED,)).fetchall()
        return [str(job_id) for (job_id,) in rows]

    def report_end(self, job_id: str, attempt: int, token: str, end_sha256: bytes) -> bool:
        """Record which end a worker has reported; ``False`` if the attempt has had another one."""
        values = (end_sha256, job_id, attempt, token, end_sha256)
        return self._db.write(lambda db: db.execute_sql(_REPORT_END, values).fetchone()) is not None

    def _leased(self, sql: str, values: Sequence[object]) -> list[LeasedAttempt]:
        with self._db.read() as db:
            attempts = db.execute_sql(sql, values).fetchall()
            return [
                LeasedAttempt(OpenAttempt(job, *rest[:-3]), AttemptLease(*rest[-2:]), claimed_at_ms=rest[-3])
                for job, rest in with_jobs(db, self._sealed, attempts)
            ]
