"""Queue figures: the queues with jobs, their numbers of jobs, and their order."""

from collections.abc import Collection, Sequence
from typing import Any

from reactorcide.domain.jobs import ACTIVE, WAITING, Job, JobStatus, QueueFigures
from reactorcide.store.connection import Connection, indexed_by


def _listed(statuses: Collection[JobStatus]) -> str:
    return ", ".join(f"'{status}'" for status in sorted(statuses))


_IS_WAITING = f"status IN ({_listed(WAITING)})"
# The index has all that is asked here.
_BY_STATUS = indexed_by("job_status")
_TO_POLL = f"""
    SELECT queue_name FROM job {_BY_STATUS} WHERE {_IS_WAITING}
    GROUP BY queue_name, priority ORDER BY priority DESC, MIN(created_at_ms), queue_name
    """  # noqa: S608  # our own text
_ACTIVE = f"SELECT DISTINCT queue_name FROM job {_BY_STATUS} WHERE status IN ({_listed(ACTIVE)})"  # noqa: S608  # as above
_FIGURES = f"""
    SELECT queue_name, SUM(CASE WHEN {_IS_WAITING} THEN jobs ELSE 0 END),
        SUM(CASE WHEN {_IS_WAITING} THEN 0 ELSE jobs END)
    FROM job_count WHERE status IN ({_listed(ACTIVE)}) AND jobs > 0 AND (? OR user_id = ?)
    GROUP BY queue_name ORDER BY queue_name LIMIT ?
    """  # noqa: S608  # as above
_OLDEST = f"""
    SELECT queue_name, MIN(created_at_ms) FROM job {_BY_STATUS}
    WHERE {_IS_WAITING} AND NOT deleted AND (? OR user_id = ?) GROUP BY queue_name
    """  # noqa: S608  # as above
_COUNTS = "SELECT queue_name, status, SUM(jobs) FROM job_count WHERE jobs > 0 GROUP BY queue_name, status"
_AHEAD = f"""
    SELECT COUNT(*) FROM job {_BY_STATUS}
    WHERE {_IS_WAITING} AND queue_name = ? AND priority >= ? AND (
        priority > ? OR created_at_ms < ? OR (created_at_ms = ? AND job_id < ?)
    )
    """  # noqa: S608  # as above


class Queues:
    """Figures of queues. Thread-safe; only reads."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def to_poll(self) -> Sequence[str]:
        """Return the queues with waiting jobs: highest priority first, then the oldest job of that one."""
        # The highest priority of a queue decides its place.
        return list(dict.fromkeys(name for (name,) in self._rows(_TO_POLL)))

    def active(self) -> Sequence[str]:
        """Return the queues with unfinished jobs, including deleted jobs."""
        return [name for (name,) in self._rows(_ACTIVE)]

    def figures(self, user_id: str | None, *, limit: int = 1000) -> list[QueueFigures]:
        """Return the figures of the first queues by name with unfinished jobs, of one user or (``None``)
        all."""
        whose = (user_id is None, user_id)
        oldest = dict(self._rows(_OLDEST, whose))
        return [
            QueueFigures(name, waiting, running, oldest.get(name))
            for name, waiting, running in self._rows(_FIGURES, (*whose, limit))
        ]

    def counts(self) -> list[tuple[str, JobStatus, int]]:
        """Return (queue, status, number of jobs) of all jobs that are not deleted."""
        return [(queue, JobStatus(status), jobs) for queue, status, jobs in self._rows(_COUNTS)]

    def ahead_of(self, job: Job) -> int:
        """Return how many waiting jobs of its queue come before a waiting job."""
        priority, created_at_ms = job.definition.priority, job.created_at_ms
        values = (job.definition.queue_name, priority, priority, created_at_ms, created_at_ms, job.job_id)
        ((ahead,),) = self._rows(_AHEAD, values)
        return int(ahead)

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        with self._db.read() as db:
            return list(db.execute_sql(sql, values))
