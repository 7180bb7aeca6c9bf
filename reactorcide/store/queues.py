"""Queue figures: which queues have jobs, how many, and what goes first."""

from collections.abc import Sequence

import peewee
from peewee import fn

from reactorcide.domain.jobs import ACTIVE, WAITING, Job, JobStatus, QueueFigures
from reactorcide.store.database import Connection
from reactorcide.store.models import JobRow


class Queues:
    """Figures of queues. Thread-safe; only reads."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def to_poll(self) -> Sequence[str]:
        """Return the queues with waiting jobs: highest priority first, then the oldest job of that one."""
        with self._db.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name)
                .where(JobRow.status.in_(list(WAITING)))
                .group_by(JobRow.queue_name, JobRow.priority)
                .order_by(JobRow.priority.desc(), fn.MIN(JobRow.created_at_ms), JobRow.queue_name)
                .tuples()
                .execute(db)
            )
            # A queue is where its highest priority puts it: what it has of lower ones comes later.
            return list(dict.fromkeys(name for (name,) in rows))

    def active(self) -> Sequence[str]:
        """Return the queues that have unfinished jobs."""
        with self._db.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name)
                .where(JobRow.status.in_(list(ACTIVE)))
                .distinct()
                .tuples()
                .execute(db)
            )
            return [name for (name,) in rows]

    def figures(self, user_id: str | None, *, limit: int = 1000) -> list[QueueFigures]:
        """Return what the first queues by name with unfinished jobs hold, of one user or (``None``) all."""
        is_waiting = JobRow.status.in_(list(WAITING))
        where = JobRow.status.in_(list(ACTIVE)) & ~JobRow.deleted
        if user_id is not None:
            where &= JobRow.user_id == user_id
        with self._db.read() as db:
            rows = (
                JobRow.select(
                    JobRow.queue_name,
                    fn.COUNT(peewee.Case(None, [(is_waiting, 1)])),
                    fn.COUNT(peewee.Case(None, [(is_waiting, None)], 1)),
                    fn.MIN(peewee.Case(None, [(is_waiting, JobRow.created_at_ms)])),
                )
                .where(where)
                .group_by(JobRow.queue_name)
                .order_by(JobRow.queue_name)
                .limit(limit)
                .tuples()
                .execute(db)
            )
            return [QueueFigures(*row) for row in rows]

    def counts(self) -> list[tuple[str, JobStatus, int]]:
        """Return (queue, status, number of jobs) of everything that is not deleted."""
        with self._db.read() as db:
            rows = (
                JobRow.select(JobRow.queue_name, JobRow.status, fn.COUNT())
                .where(~JobRow.deleted)
                .group_by(JobRow.queue_name, JobRow.status)
                .tuples()
                .execute(db)
            )
            return [(queue, JobStatus(status), count) for queue, status, count in rows]

    def ahead_of(self, job: Job) -> int:
        """Return how many waiting jobs of its queue go before a waiting one."""
        priority, created_at_ms = job.definition.priority, job.created_at_ms
        with self._db.read() as db:
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
