"""Retention: which jobs are removable, their disk usage, and removing their rows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reactorcide.domain.jobs import EndedJob, Job
from reactorcide.store import counts
from reactorcide.store.connection import Connection, indexed_by
from reactorcide.store.models.jobs import AttemptRow, JobEventRow
from reactorcide.store.rows import as_cut_dict, cut_list
from reactorcide.store.sealed import SealedFields
from reactorcide.store.tasks import SWEEP_CHARS

# Only ended jobs have a completion time. The index `job_removable` covers the first line and the run, so that
# a decision over very many jobs reads only the index.
_REMOVABLE = (
    "completed_at_ms IS NOT NULL AND NOT deleted AND NOT pinned AND NOT task_open "
    "AND NOT EXISTS "
    "(SELECT 1 FROM attempt WHERE attempt.job_id = job.job_id AND attempt.completed_at_ms IS NULL) "
    "AND NOT EXISTS "
    "(SELECT 1 FROM job AS next WHERE next.source_job_id = job.job_id AND next.completed_at_ms IS NULL) "
    "AND (run_id IS NULL OR run_id NOT IN (SELECT run_id FROM run WHERE completed_at_ms IS NULL OR pinned))"
)
_REMOVABLE_JOBS = (
    f"SELECT job_id, completed_at_ms, stored_bytes, run_id FROM job WHERE {_REMOVABLE} "  # noqa: S608  # our own text
    "ORDER BY completed_at_ms DESC, job_id DESC"
)
_ENDED_RUNS = (
    "SELECT run.run_id, run.completed_at_ms, COUNT(job.job_id) FROM run "
    "JOIN job ON job.run_id = run.run_id AND NOT job.deleted "
    "WHERE run.completed_at_ms IS NOT NULL GROUP BY run.run_id"
)
_UNMEASURED = f"SELECT job_id FROM job WHERE {_REMOVABLE} AND stored_bytes IS NULL LIMIT ?"  # noqa: S608  # as above
_DELETE_REMOVABLE = (
    f"UPDATE job SET deleted = ?, updated_at_ms = ? WHERE job_id = ? AND {_REMOVABLE} "  # noqa: S608  # as above
    f"{counts.RETURNING}"
)
_NOTHING_OPEN = (
    "deleted AND NOT task_open AND NOT EXISTS "
    "(SELECT 1 FROM attempt WHERE attempt.job_id = job.job_id AND attempt.completed_at_ms IS NULL)"
)
_SELECT_CUT = f"SELECT {cut_list(SWEEP_CHARS)} FROM job"  # noqa: S608  # as above
_TO_PURGE = f"{_SELECT_CUT} {indexed_by('job_deleted')} WHERE {_NOTHING_OPEN} LIMIT ?"
_IS_TO_PURGE = f"{_SELECT_CUT} WHERE {_NOTHING_OPEN} AND job_id = ? LIMIT ?"
_PURGE = f"DELETE FROM job WHERE job_id = ? AND deleted {counts.RETURNING}"  # noqa: S608  # as above


class Retention:
    """Ended jobs, and removing them. Thread-safe."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def removable(self) -> list[EndedJob]:
        """Return the ended, unpinned jobs with nothing left open; the last to end first.

        Jobs of a run are together, at the end of the run, and only if all of them qualify.
        """
        with self._db.read() as db:
            jobs = [EndedJob(*row) for row in db.execute_sql(_REMOVABLE_JOBS)]
            runs = {run_id: (ended_ms, count) for run_id, ended_ms, count in db.execute_sql(_ENDED_RUNS)}
        jobs_of_run = Counter(job.run_id for job in jobs)
        whole = [
            job if job.run_id not in runs else replace(job, completed_at_ms=runs[job.run_id][0])
            for job in jobs
            if job.run_id not in runs or runs[job.run_id][1] == jobs_of_run[job.run_id]
        ]
        return sorted(
            whole, key=lambda job: (job.completed_at_ms, job.run_id or job.job_id, job.job_id), reverse=True
        )

    def unmeasured(self, *, limit: int) -> list[str]:
        """Return some of these jobs whose disk usage was not measured yet."""
        with self._db.read() as db:
            return [job_id for (job_id,) in db.execute_sql(_UNMEASURED, (limit,))]

    def save_sizes(self, sizes_bytes: Mapping[str, int]) -> None:
        """Store the disk usage of each job's logs and artifacts."""

        def work(db: Any) -> None:
            for job_id, size_bytes in sizes_bytes.items():
                db.execute_sql("UPDATE job SET stored_bytes = ? WHERE job_id = ?", (size_bytes, job_id))

        self._db.write(work)

    def delete(self, job_id: str, *, now_ms: int) -> bool:
        """Mark a removable job as deleted; returns whether it was removable."""

        def work(db: Any) -> bool:
            row = db.execute_sql(_DELETE_REMOVABLE, (True, now_ms, job_id)).fetchone()
            if row is not None:
                counts.deleted(db, row)
            return row is not None

        return self._db.write(work)

    def to_purge(self, *, job_id: str | None = None, limit: int = 100) -> list[Job]:
        """Return deleted jobs (or that one) with no attempt left open and no task left in Corndogs."""
        sql, values = (_TO_PURGE, [limit]) if job_id is None else (_IS_TO_PURGE, [job_id, limit])
        with self._db.read() as db:
            return [self._sealed.job(as_cut_dict(row)) for row in db.execute_sql(sql, values)]

    def purge(self, job_id: str) -> None:
        """Remove every row of a deleted job; safe to repeat."""

        def work(db: Any) -> None:
            row = db.execute_sql(_PURGE, (job_id,)).fetchone()
            if row is None:
                return
            counts.purged(db, row)
            AttemptRow.delete().where(AttemptRow.job_id == job_id).execute(db)
            JobEventRow.delete().where(JobEventRow.job_id == job_id).execute(db)

        self._db.write(work)
