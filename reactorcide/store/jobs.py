"""Jobs: added, moved from one status to the next, read and listed.

Every status change is one conditional UPDATE: the WHERE clause is the guard, and zero rows mean that the
change did not happen.
"""

from collections.abc import Collection
from typing import Any

from peewee import fn

from reactorcide.domain.errors import IllegalTransition, NotFound
from reactorcide.domain.jobs import Job, JobFilter, JobStatus
from reactorcide.store import transitions
from reactorcide.store.database import Connection
from reactorcide.store.models import JobRow
from reactorcide.store.rows import COLUMN_LIST, as_dict, cut_columns
from reactorcide.store.sealed import DEFINITION_FIELDS, JOB_FIELDS, SealedFields

_SELECT = f"SELECT {COLUMN_LIST} FROM job WHERE job_id = ?"  # noqa: S608  # names of ours only
_PIN = f"UPDATE job SET pinned = ? WHERE job_id = ? AND NOT deleted RETURNING {COLUMN_LIST}"  # noqa: S608  # as above
_DELETE = "UPDATE job SET deleted = ?, updated_at_ms = ? WHERE job_id = ?"


class Jobs:
    """Jobs. Thread-safe; each write is one transaction, or part of the one that this belongs to."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def add(self, job: Job, *, next_submit_at_ms: int) -> None:
        """Insert a new job. It is to be submitted again if Corndogs has not got it by then."""
        row = {name: getattr(job.definition, name) for name in DEFINITION_FIELDS}
        row |= {name: getattr(job, name) for name in JOB_FIELDS}
        row |= self._sealed.seal(job.job_id, row["job_env_vars"], row["secret_env_vars"], row["git_url"])
        row |= {
            "artifacts": JobRow.artifacts.db_value(row["artifacts"]),
            "status": job.status,
            "next_submit_at_ms": next_submit_at_ms,
            "submit_failures": 0,
            "task_open": False,
            "stored_bytes": None,
        }
        self._db.write(lambda db: transitions.insert(db, row))

    def transition(
        self,
        job_id: str,
        target: JobStatus,
        *,
        now_ms: int,
        only_from: Collection[JobStatus],
        **changes: object,
    ) -> Job:
        """Move a job to ``target`` if its status is in ``only_from``, and return it as it is then.

        ``changes`` are further columns of the row. Raises ``IllegalTransition`` if the guard did not match,
        and then nothing has changed.
        """
        row = self._db.write(lambda db: transitions.move(db, job_id, target, now_ms, only_from, changes))
        if row is None:
            raise self.refused(job_id, target)
        return self._sealed.job(row)

    def refused(self, job_id: str, target: JobStatus) -> IllegalTransition:
        """Return the error of a job whose status does not allow ``target``."""
        with self._db.read() as db:
            row = db.execute_sql("SELECT status FROM job WHERE job_id = ?", (job_id,)).fetchone()
        status = row[0] if row else "gone"
        return IllegalTransition(f"job {job_id} is {status} and cannot become {target}")

    def pin(self, job_id: str, pinned: bool) -> Job:
        """Pin a job, or take its pin away; returns it. Raises ``NotFound``."""
        row = self._db.write(lambda db: db.execute_sql(_PIN, (pinned, job_id)).fetchone())
        if row is None:
            raise NotFound(f"there is no job {job_id}")
        return self._sealed.job(as_dict(row))

    def delete(self, job_id: str, *, now_ms: int) -> None:
        """Leave a tombstone: clients do not see the job any more. ``Retention.purge`` removes its rows."""
        self._db.write(lambda db: db.execute_sql(_DELETE, (True, now_ms, job_id)))

    def get(self, job_id: str) -> Job:
        """Return a job, tombstones included; raises ``NotFound``."""
        with self._db.read() as db:
            for row in db.execute_sql(_SELECT, (job_id,)):
                return self._sealed.job(as_dict(row))
        raise NotFound(f"there is no job {job_id}")

    def page(
        self,
        wanted: JobFilter,
        *,
        limit: int,
        offset: int = 0,
        after: tuple[int, str] | None = None,
        max_chars: int | None = None,
    ) -> tuple[list[Job], int]:
        """Return a page of jobs, newest first, and how many match in all.

        ``after`` is (created_at_ms, job_id) of the last job of the page before. With ``max_chars`` no text
        of a job is longer, and there is no secret in it; collections that take more as JSON are left out.
        """
        where = ~JobRow.deleted
        if wanted.user_id is not None:
            where &= JobRow.user_id == wanted.user_id
        if wanted.statuses:
            where &= JobRow.status.in_(list(wanted.statuses))
        if wanted.queue_name is not None:
            where &= JobRow.queue_name == wanted.queue_name
        if wanted.source_type is not None:
            where &= JobRow.source_type == wanted.source_type
        if wanted.name_prefix:
            where &= fn.substr(JobRow.name, 1, len(wanted.name_prefix)) == wanted.name_prefix
        if wanted.pinned is not None:
            where &= JobRow.pinned == wanted.pinned
        page = where
        if after is not None:
            created_at_ms, job_id = after
            page &= (JobRow.created_at_ms < created_at_ms) | (
                (JobRow.created_at_ms == created_at_ms) & (JobRow.job_id < job_id)
            )
        columns: list[Any] = [] if max_chars is None else cut_columns(max_chars)
        job_of = self._sealed.job if max_chars is None else self._sealed.cut_job
        with self._db.read() as db:
            total = JobRow.select(fn.COUNT()).where(where).tuples().execute(db)[0][0]
            rows = (
                JobRow.select(*columns)
                .where(page)
                .order_by(JobRow.created_at_ms.desc(), JobRow.job_id.desc())
                .limit(limit)
                .offset(offset)
                .dicts()
                .execute(db)
            )
            return [job_of(row) for row in rows], int(total)
