"""Queries on jobs, their attempts and their status changes.

Every status change is one conditional UPDATE: the WHERE clause is the guard, and zero rows mean that the
change did not happen. A trigger of the schema writes the ``job_event`` row beside it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import peewee
from peewee import fn

from reactorcide.domain.errors import IllegalTransition, NotFound
from reactorcide.domain.jobs import (
    ACTIVE,
    FINAL,
    WAITING,
    AttemptRecord,
    Job,
    JobDefinition,
    JobFilter,
    JobStatus,
    OpenAttempt,
    QueueFigures,
)
from reactorcide.store.database import Database
from reactorcide.store.models import AttemptRow, InstanceRow, JobEventRow, JobRow

_DEFINITION_FIELDS = tuple(item.name for item in fields(JobDefinition))
_JOB_FIELDS = tuple(item.name for item in fields(Job) if item.name not in ("definition", "status"))


_LONGEST_DELAY_MS = 120_000
"""No submission is ever put off for longer."""

# What every job goes through is written as SQL: building these statements anew each time takes peewee
# several times as long as SQLite takes to run them.
_COLUMNS = tuple(JobRow._meta.columns)
_COLUMN_LIST = ", ".join(_COLUMNS)
_SELECT_JOB = f"SELECT {_COLUMN_LIST} FROM job WHERE job_id = ?"  # noqa: S608  # names of ours only
_SELECT_STATUS = "SELECT status FROM job WHERE job_id = ?"
_INSERT_JOB = f"INSERT INTO job ({_COLUMN_LIST}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608  # as above


def _as_dict(row: Sequence[Any]) -> dict[str, Any]:
    """Return a row of ``_COLUMNS`` as peewee's ``dicts()`` would."""
    values = dict(zip(_COLUMNS, row, strict=True))
    values["job_env_vars"] = JobRow.job_env_vars.python_value(values["job_env_vars"])
    values["deleted"] = bool(values["deleted"])
    return values


def _job(row: dict[str, Any]) -> Job:
    return Job(
        definition=JobDefinition(**{name: row[name] for name in _DEFINITION_FIELDS}),
        status=JobStatus(row["status"]),
        **{name: row[name] for name in _JOB_FIELDS},
    )


def _update_status(
    job_id: str,
    target: JobStatus,
    now_ms: int,
    only_from: Collection[JobStatus],
    changes: Mapping[str, object],
    *,
    attempt: int | None = None,
) -> tuple[str, tuple[object, ...]]:
    """Return the statement, with its values, that moves a job to ``target`` and returns its row."""
    assignments = "".join(f", {name} = ?" for name in changes)
    guard = ", ".join("?" * len(only_from))
    values = (target, now_ms, *changes.values(), job_id, *sorted(only_from))
    sql = (
        f"UPDATE job SET status = ?, updated_at_ms = ?{assignments}"  # noqa: S608  # names of ours only
        f" WHERE job_id = ? AND status IN ({guard})"
    )
    if attempt is not None:
        sql, values = sql + " AND attempt = ?", (*values, attempt)
    return f"{sql} RETURNING {_COLUMN_LIST}", values


class JobStore:
    """Jobs in the database. Thread-safe; every method is one transaction, durable on return.

    All methods raise ``StoreError`` where the database does not do its work.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- writing -------------------------------------------------------------------------------

    def add(self, job: Job, *, next_submit_at_ms: int) -> None:
        """Insert a new job. It is to be submitted again if Corndogs has not got it by then."""
        row = {name: getattr(job.definition, name) for name in _DEFINITION_FIELDS}
        row |= {name: getattr(job, name) for name in _JOB_FIELDS}
        row |= {
            "job_env_vars": JobRow.job_env_vars.db_value(row["job_env_vars"]),
            "status": job.status,
            "next_submit_at_ms": next_submit_at_ms,
            "submit_failures": 0,
            "task_open": False,
        }
        self._database.write_one(_INSERT_JOB, [row[name] for name in _COLUMNS])

    def transition(
        self,
        job_id: str,
        target: JobStatus,
        *,
        now_ms: int,
        only_from: Collection[JobStatus],
        **changes: object,
    ) -> Job:
        """Move a job to ``target`` if its status is in ``only_from``.

        ``changes`` are further columns of the row. Returns the job as it is afterwards; raises
        ``IllegalTransition`` if the guard did not match, and then nothing has changed.
        """
        return self._moved(
            self._database.write_one(*_update_status(job_id, target, now_ms, only_from, changes)),
            job_id,
            target,
        )

    def claim(self, job_id: str, task_id: str, worker_id: str, *, now_ms: int, log_key: str) -> Job:
        """Make a waiting job ``running`` and open its attempt: the fence that decides who runs it.

        Raises ``IllegalTransition`` if the job does not wait.
        """
        with self._database.write() as db:
            changes = {
                "worker_id": worker_id,
                "corndogs_task_id": task_id,
                "task_open": True,
                "logs_object_key": log_key,
                "error": None,
            }
            statement = _update_status(job_id, JobStatus.RUNNING, now_ms, WAITING, changes)
            job = self._moved(db.execute_sql(*statement).fetchall(), job_id, JobStatus.RUNNING)
            AttemptRow.insert(
                job_id=job_id,
                attempt=job.attempt,
                worker_id=worker_id,
                claimed_at_ms=now_ms,
                heartbeat_at_ms=now_ms,
                log_offset=0,
            ).execute(db)
            return job

    def start_attempt(
        self, job_id: str, attempt: int, container_id: str, *, now_ms: int, log_offset: int
    ) -> None:
        """Record that the container of an attempt runs, and where its output begins in the log."""
        with self._database.write() as db:
            AttemptRow.update(container_id=container_id, started_at_ms=now_ms, log_offset=log_offset).where(
                (AttemptRow.job_id == job_id) & (AttemptRow.attempt == attempt)
            ).execute(db)
            JobRow.update(started_at_ms=now_ms, updated_at_ms=now_ms).where(
                (JobRow.job_id == job_id) & (JobRow.attempt == attempt) & (JobRow.status == JobStatus.RUNNING)
            ).execute(db)

    def end_attempt(
        self,
        job_id: str,
        attempt: int,
        target: JobStatus,
        *,
        now_ms: int,
        exit_code: int | None,
        error: str | None,
        job_changes: Mapping[str, object],
    ) -> Job | None:
        """Close an attempt and move its job from ``running`` to ``target``, in one transaction.

        Where the job has been cancelled meanwhile only the attempt is closed, and ``None`` is returned.
        An attempt that is closed already stays as it is: repeating is harmless.
        """
        with self._database.write() as db:
            AttemptRow.update(completed_at_ms=now_ms, exit_code=exit_code, error=error).where(
                (AttemptRow.job_id == job_id)
                & (AttemptRow.attempt == attempt)
                & AttemptRow.completed_at_ms.is_null()
            ).execute(db)
            statement = _update_status(
                job_id, target, now_ms, {JobStatus.RUNNING}, job_changes, attempt=attempt
            )
            rows = db.execute_sql(*statement).fetchall()
            return _job(_as_dict(rows[0])) if rows else None

    def heartbeat(self, attempts: Iterable[tuple[str, int]], *, now_ms: int) -> None:
        """Stamp the attempts that a worker holds."""
        with self._database.write() as db:
            for job_id, attempt in attempts:
                AttemptRow.update(heartbeat_at_ms=now_ms).where(
                    (AttemptRow.job_id == job_id) & (AttemptRow.attempt == attempt)
                ).execute(db)

    def task_closed(self, job_id: str, task_id: str) -> None:
        """Record that Corndogs has no live task of the job any more."""
        with self._database.write() as db:
            JobRow.update(task_open=False).where(
                (JobRow.job_id == job_id) & (JobRow.corndogs_task_id == task_id)
            ).execute(db)

    def submit_interrupted(self) -> None:
        """Make jobs due at once whose submission was under way when the service ended.

        Only for the start of a service: while one runs, that is what its submitters are doing.
        """
        with self._database.write() as db:
            JobRow.update(next_submit_at_ms=0).where(
                (JobRow.status == JobStatus.SUBMITTED) & (JobRow.attempt == 1)
            ).execute(db)

    def forget_tasks(self, *, now_ms: int) -> None:
        """Have every job that waits submitted anew: the queue that has its task is not there any more."""
        with self._database.write() as db:
            JobRow.update(
                status=JobStatus.SUBMITTED,
                corndogs_task_id=None,
                task_open=False,
                next_submit_at_ms=0,
                updated_at_ms=now_ms,
            ).where(JobRow.status == JobStatus.QUEUED).execute(db)

    def mark_deleted(self, job_id: str, *, now_ms: int) -> None:
        """Leave a tombstone: clients do not see the job any more."""
        with self._database.write() as db:
            JobRow.update(deleted=True, updated_at_ms=now_ms).where(JobRow.job_id == job_id).execute(db)

    def purge(self, job_id: str) -> None:
        """Remove every row of a deleted job."""
        with self._database.write() as db:
            AttemptRow.delete().where(AttemptRow.job_id == job_id).execute(db)
            JobEventRow.delete().where(JobEventRow.job_id == job_id).execute(db)
            JobRow.delete().where((JobRow.job_id == job_id) & JobRow.deleted).execute(db)

    # --- reading -------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Return a job, tombstones included; raises ``NotFound``."""
        with self._database.read() as db:
            for row in db.execute_sql(_SELECT_JOB, (job_id,)):
                return _job(_as_dict(row))
        raise NotFound(f"there is no job {job_id}")

    def page(
        self, wanted: JobFilter, *, limit: int, offset: int = 0, after: tuple[int, str] | None = None
    ) -> tuple[list[Job], int]:
        """Return a page of jobs, newest first, and how many match in all.

        ``after`` is (created_at_ms, job_id) of the last job of the page before.
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
        page = where
        if after is not None:
            created_at_ms, job_id = after
            page &= (JobRow.created_at_ms < created_at_ms) | (
                (JobRow.created_at_ms == created_at_ms) & (JobRow.job_id < job_id)
            )
        with self._database.read() as db:
            total = JobRow.select(fn.COUNT()).where(where).tuples().execute(db)[0][0]
            rows = (
                JobRow.select()
                .where(page)
                .order_by(JobRow.created_at_ms.desc(), JobRow.job_id.desc())
                .limit(limit)
                .offset(offset)
                .dicts()
                .execute(db)
            )
            return [_job(row) for row in rows], int(total)

    def log_is_closed(self, job_id: str, attempt: int) -> bool:
        """Tell whether nothing will be added to an attempt's log any more."""
        with self._database.read() as db:
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
                # Not begun: it closes empty where the job is over, or is past this attempt.
                return JobStatus(job_status) in FINAL or job_attempt > attempt
        return True

    def queues_to_poll(self) -> Sequence[str]:
        """Return the queues with waiting jobs: highest priority first, then the longest wait."""
        with self._database.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name)
                .where(JobRow.status.in_(list(WAITING)))
                .group_by(JobRow.queue_name)
                .order_by(fn.MAX(JobRow.priority).desc(), fn.MIN(JobRow.created_at_ms))
                .tuples()
                .execute(db)
            )
            return [name for (name,) in rows]

    def active_queues(self) -> Sequence[str]:
        """Return the queues that have unfinished jobs."""
        with self._database.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name)
                .where(JobRow.status.in_(list(ACTIVE)))
                .distinct()
                .tuples()
                .execute(db)
            )
            return [name for (name,) in rows]

    def to_submit(self, *, now_ms: int, limit: int = 100) -> list[tuple[Job, int]]:
        """Return waiting jobs that Corndogs should have got by now, with their failures in a row."""
        with self._database.read() as db:
            rows = (
                JobRow.select()
                .where(
                    JobRow.status.in_([JobStatus.SUBMITTED, JobStatus.SUBMIT_FAILED])
                    & (
                        (JobRow.next_submit_at_ms <= now_ms)
                        # A clock that was put back must not make anybody wait for as long.
                        | (JobRow.next_submit_at_ms > now_ms + _LONGEST_DELAY_MS)
                    )
                )
                .order_by(JobRow.next_submit_at_ms)
                .limit(limit)
                .dicts()
                .execute(db)
            )
            return [(_job(row), row["submit_failures"]) for row in rows]

    def to_close(self, *, limit: int = 100) -> list[Job]:
        """Return jobs that are over while Corndogs still has their task."""
        return self._select((JobRow.task_open == 1) & JobRow.status.in_(list(FINAL)), limit)

    def to_purge(self, *, limit: int = 100) -> list[Job]:
        """Return deleted jobs with no attempt left open and no task left in Corndogs."""
        still_open = AttemptRow.select(AttemptRow.job_id).where(
            (AttemptRow.job_id == JobRow.job_id) & AttemptRow.completed_at_ms.is_null()
        )
        return self._select((JobRow.deleted == 1) & ~JobRow.task_open & ~fn.EXISTS(still_open), limit)

    def open_attempts(self) -> list[OpenAttempt]:
        """Return every attempt that has not ended."""
        with self._database.read() as db:
            rows = (
                JobRow.select(
                    JobRow,
                    AttemptRow.worker_id.alias("attempt_worker_id"),
                    AttemptRow.started_at_ms.alias("attempt_started_at_ms"),
                    AttemptRow.container_id,
                    AttemptRow.log_offset,
                )
                .join(
                    AttemptRow,
                    on=(AttemptRow.job_id == JobRow.job_id) & (AttemptRow.attempt == JobRow.attempt),
                )
                .where(AttemptRow.completed_at_ms.is_null())
                .dicts()
                .execute(db)
            )
            return [
                OpenAttempt(
                    job=_job(row),
                    worker_id=row["attempt_worker_id"],
                    started_at_ms=row["attempt_started_at_ms"],
                    container_id=row["container_id"],
                    log_offset=row["log_offset"],
                )
                for row in rows
            ]

    def queue_figures(self, user_id: str | None) -> list[QueueFigures]:
        """Return what each queue with unfinished jobs holds, of one user or (``None``) of all."""
        is_waiting = JobRow.status.in_(list(WAITING))
        where = JobRow.status.in_(list(ACTIVE)) & ~JobRow.deleted
        if user_id is not None:
            where &= JobRow.user_id == user_id
        with self._database.read() as db:
            rows = (
                JobRow.select(
                    JobRow.queue_name,
                    fn.SUM(is_waiting),
                    fn.SUM(~is_waiting),
                    fn.MIN(peewee.Case(None, [(is_waiting, JobRow.created_at_ms)])),
                )
                .where(where)
                .group_by(JobRow.queue_name)
                .order_by(JobRow.queue_name)
                .tuples()
                .execute(db)
            )
            return [QueueFigures(*row) for row in rows]

    def counts(self) -> list[tuple[str, JobStatus, int]]:
        """Return (queue, status, number of jobs) of everything that is not deleted."""
        with self._database.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name, JobRow.status, fn.COUNT())
                .where(~JobRow.deleted)
                .group_by(JobRow.queue_name, JobRow.status)
                .tuples()
                .execute(db)
            )
            return [(queue, JobStatus(status), count) for queue, status, count in rows]

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """Return every attempt of a job, the first one first."""
        names = [item.name for item in fields(AttemptRecord)]
        with self._database.read() as db:
            rows = (
                AttemptRow.select(*(getattr(AttemptRow, name) for name in names))
                .where(AttemptRow.job_id == job_id)
                .order_by(AttemptRow.attempt)
                .dicts()
                .execute(db)
            )
            return [AttemptRecord(**row) for row in rows]

    def ahead_of(self, job: Job) -> int:
        """Return how many waiting jobs of its queue go before a waiting one."""
        priority, created_at_ms = job.definition.priority, job.created_at_ms
        with self._database.read() as db:
            rows = (
                JobRow.select(fn.COUNT())
                .where(
                    JobRow.status.in_(list(WAITING))
                    & (JobRow.queue_name == job.definition.queue_name)
                    & (
                        (JobRow.priority > priority)
                        | (
                            (JobRow.priority == priority)
                            & (
                                (JobRow.created_at_ms < created_at_ms)
                                | ((JobRow.created_at_ms == created_at_ms) & (JobRow.job_id < job.job_id))
                            )
                        )
                    )
                )
                .tuples()
                .execute(db)
            )
            return int(rows[0][0])

    def next_submit_at_ms(self, job_id: str) -> int:
        """Return when a job that Corndogs does not have is submitted again."""
        with self._database.read() as db:
            for (at_ms,) in db.execute_sql("SELECT next_submit_at_ms FROM job WHERE job_id = ?", (job_id,)):
                return int(at_ms)
        raise NotFound(f"there is no job {job_id}")

    def instance_id(self, proposed: str) -> str:
        """Return this installation's id; the first call ever makes it ``proposed``."""
        with self._database.write() as db:
            for (instance_id,) in InstanceRow.select().tuples().execute(db):
                return str(instance_id)
            InstanceRow.insert(instance_id=proposed).execute(db)
            return proposed

    # --- helpers -------------------------------------------------------------------------------

    def _select(self, where: Any, limit: int) -> list[Job]:
        with self._database.read() as db:
            return [_job(row) for row in JobRow.select().where(where).limit(limit).dicts().execute(db)]

    def _moved(self, rows: Sequence[Sequence[Any]], job_id: str, target: JobStatus) -> Job:
        """Return the job that an UPDATE of its status returned; raises ``IllegalTransition`` for none."""
        for row in rows:
            return _job(_as_dict(row))
        with self._database.read() as db:
            found = db.execute_sql(_SELECT_STATUS, (job_id,)).fetchone()
        status = found[0] if found else "gone"
        raise IllegalTransition(f"job {job_id} is {status} and cannot become {target}")
