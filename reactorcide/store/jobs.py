"""Jobs: added, moved from one status to the next, read and listed.

Every status change is one conditional UPDATE: the WHERE clause is the guard, and zero rows mean that the
change did not happen.
"""

import json
from collections.abc import Collection
from typing import Any

from reactorcide.domain.errors import IllegalTransition, NotFound
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.reports import TestCounts
from reactorcide.store import counts, transitions
from reactorcide.store.connection import Connection
from reactorcide.store.models.jobs import JobRow
from reactorcide.store.rows import COLUMN_LIST, as_dict
from reactorcide.store.sealed import DEFINITION_FIELDS, JOB_FIELDS, SealedFields

_SELECT = f"SELECT {COLUMN_LIST} FROM job WHERE job_id = ?"  # noqa: S608  # names of ours only
_PIN = "UPDATE job SET pinned = ? WHERE job_id = ? AND NOT deleted AND pinned <> ? RETURNING " + COLUMN_LIST  # noqa: S608  # as above
_DELETE = "UPDATE job SET deleted = ?, updated_at_ms = ? WHERE job_id = ? AND NOT deleted " + counts.RETURNING  # noqa: S608  # as above


class Jobs:
    """Jobs. Thread-safe; each write is one transaction, or part of the one that this belongs to."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def add(self, job: Job, *, next_submit_at_ms: int) -> None:
        """Insert a new job; the sweep submits it again if Corndogs does not have it at that time."""
        row = {name: getattr(job.definition, name) for name in DEFINITION_FIELDS}
        row |= {name: getattr(job, name) for name in JOB_FIELDS}
        row |= self._sealed.seal(
            job.job_id,
            row["job_env_vars"],
            row["secret_env_vars"],
            row["git_url"],
            services=row["services"],
            masked=row["masked"],
        )
        row |= {
            "artifacts": JobRow.artifacts.db_value(row["artifacts"]),
            "status": job.status,
            "next_submit_at_ms": next_submit_at_ms,
            "submit_failures": 0,
            "task_open": False,
            "stored_bytes": None,
            "previous_status": None,
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
        """Pin or unpin a job; returns it. Raises ``NotFound``."""

        def work(db: Any) -> None:
            row = db.execute_sql(_PIN, (pinned, job_id, pinned)).fetchone()
            if row is not None:
                after = as_dict(row)
                counts.moved(db, after | {"pinned": not pinned}, after)

        self._db.write(work)
        job = self.get(job_id)
        if job.deleted:
            raise NotFound(f"there is no job {job_id}")
        return job

    def delete(self, job_id: str, *, now_ms: int) -> None:
        """Mark a job as deleted: clients no longer see it. ``Retention.purge`` removes its rows."""

        def work(db: Any) -> None:
            row = db.execute_sql(_DELETE, (True, now_ms, job_id)).fetchone()
            if row is not None:
                counts.deleted(db, row)

        self._db.write(work)

    def set_tests(self, job_id: str, attempt: int, tests: TestCounts) -> None:
        """Store the test results of the current attempt of a job; those of an earlier attempt are ignored."""
        counts = json.dumps([tests.passed, tests.failed, tests.skipped])
        sql = "UPDATE job SET tests = ? WHERE job_id = ? AND attempt = ?"
        self._db.write(lambda db: db.execute_sql(sql, (counts, job_id, attempt)))

    def get(self, job_id: str) -> Job:
        """Return a job, tombstones included; raises ``NotFound``."""
        job = self.find(job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id}")
        return job

    def beginning_with(self, text: str, *, limit: int) -> list[str]:
        """Return ids of jobs that begin with ``text``, hexadecimal digits and ``-``."""
        sql = (
            "SELECT job_id FROM job WHERE job_id >= ? AND job_id < ? AND NOT deleted ORDER BY job_id LIMIT ?"
        )
        with self._db.read() as db:
            return [job_id for (job_id,) in db.execute_sql(sql, (text, f"{text}g", limit))]

    def is_deleted(self, job_id: str) -> bool:
        """Return whether a job is marked as deleted, or its row is gone."""
        with self._db.read() as db:
            row = db.execute_sql("SELECT deleted FROM job WHERE job_id = ?", (job_id,)).fetchone()
        return row is None or bool(row[0])

    def find(self, job_id: str) -> Job | None:
        """Return a job, tombstones included; ``None`` if there is none."""
        with self._db.read() as db:
            for row in db.execute_sql(_SELECT, (job_id,)):
                return self._sealed.job(as_dict(row))
        return None
