"""Retention: which jobs may be removed, what they take of the disk, and removing their rows."""

from collections.abc import Mapping
from typing import Any

from peewee import fn

from reactorcide.domain.jobs import EndedJob, Job
from reactorcide.store.database import Connection
from reactorcide.store.models import AttemptRow, JobEventRow, JobRow
from reactorcide.store.rows import cut_columns
from reactorcide.store.sealed import SealedFields
from reactorcide.store.tasks import SWEEP_CHARS

# A job has a time of completion when it is over, and not before. All of the first line is in the index
# `job_removable`, so that a decision over very many jobs reads nothing else of them.
_REMOVABLE = (
    "completed_at_ms IS NOT NULL AND NOT deleted AND NOT pinned AND NOT task_open "
    "AND NOT EXISTS "
    "(SELECT 1 FROM attempt WHERE attempt.job_id = job.job_id AND attempt.completed_at_ms IS NULL) "
    "AND NOT EXISTS "
    "(SELECT 1 FROM job AS next WHERE next.source_job_id = job.job_id AND next.completed_at_ms IS NULL)"
)
_REMOVABLE_JOBS = (
    f"SELECT job_id, completed_at_ms, stored_bytes FROM job WHERE {_REMOVABLE} "  # noqa: S608  # our own text
    "ORDER BY completed_at_ms DESC, job_id DESC"
)
_UNMEASURED = f"SELECT job_id FROM job WHERE {_REMOVABLE} AND stored_bytes IS NULL LIMIT ?"  # noqa: S608  # as above
_DELETE_REMOVABLE = (
    f"UPDATE job SET deleted = ?, updated_at_ms = ? WHERE job_id = ? AND {_REMOVABLE} RETURNING job_id"  # noqa: S608  # as above
)


class Retention:
    """The jobs that are over, and removing them. Thread-safe."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def removable(self) -> list[EndedJob]:
        """Return the jobs that are over, unpinned, and have nothing left open; the last to end first."""
        with self._db.read() as db:
            return [EndedJob(*row) for row in db.execute_sql(_REMOVABLE_JOBS)]

    def unmeasured(self, *, limit: int) -> list[str]:
        """Return some of those jobs whose logs and artifacts have not been measured."""
        with self._db.read() as db:
            return [job_id for (job_id,) in db.execute_sql(_UNMEASURED, (limit,))]

    def save_sizes(self, sizes_bytes: Mapping[str, int]) -> None:
        """Record what each job's logs and artifacts take."""

        def work(db: Any) -> None:
            for job_id, size_bytes in sizes_bytes.items():
                db.execute_sql("UPDATE job SET stored_bytes = ? WHERE job_id = ?", (size_bytes, job_id))

        self._db.write(work)

    def delete(self, job_id: str, *, now_ms: int) -> bool:
        """Leave a tombstone of a job that is removable; tells whether it was."""
        row = self._db.write(lambda db: db.execute_sql(_DELETE_REMOVABLE, (True, now_ms, job_id)).fetchone())
        return row is not None

    def to_purge(self, *, job_id: str | None = None, limit: int = 100) -> list[Job]:
        """Return deleted jobs (or that one) with no attempt left open and no task left in Corndogs."""
        still_open = AttemptRow.select(AttemptRow.job_id).where(
            (AttemptRow.job_id == JobRow.job_id) & AttemptRow.completed_at_ms.is_null()
        )
        where = JobRow.deleted & ~JobRow.task_open & ~fn.EXISTS(still_open)
        if job_id is not None:
            where &= JobRow.job_id == job_id
        query = JobRow.select(*cut_columns(SWEEP_CHARS)).where(where).limit(limit)
        with self._db.read() as db:
            return [self._sealed.cut_job(row) for row in query.dicts().execute(db)]

    def purge(self, job_id: str) -> None:
        """Remove every row of a deleted job; repeating is harmless."""

        def work(db: Any) -> None:
            AttemptRow.delete().where(AttemptRow.job_id == job_id).execute(db)
            JobEventRow.delete().where(JobEventRow.job_id == job_id).execute(db)
            JobRow.delete().where((JobRow.job_id == job_id) & JobRow.deleted).execute(db)

        self._db.write(work)
