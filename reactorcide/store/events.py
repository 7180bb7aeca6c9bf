"""Events: the status changes of jobs, in order."""

from typing import Any

from reactorcide.domain.jobs import JobEvent, JobStatus
from reactorcide.store.database import Connection
from reactorcide.store.models import JobEventRow, JobRow
from reactorcide.store.sealed import SealedFields

_INSERT = (
    "INSERT INTO job_event (job_id, at_ms, status_from, status_to, attempt, reason) VALUES (?, ?, ?, ?, ?, ?)"
)


def insert(db: Any, row: dict[str, Any], status_from: JobStatus | None) -> None:
    """Write the event of a status change, in the transaction that changes the job to ``row``."""
    db.execute_sql(
        _INSERT,
        (row["job_id"], row["updated_at_ms"], status_from, row["status"], row["attempt"], row["error"]),
    )


class Events:
    """Status changes. Thread-safe."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def last_id(self) -> int:
        """Return the id of the last status change so far, 0 where there is none."""
        with self._db.read() as db:
            for (event_id,) in db.execute_sql("SELECT MAX(id) FROM job_event"):
                return int(event_id or 0)
        return 0

    def after(self, event_id: int, user_id: str | None, *, limit: int = 100) -> list[JobEvent]:
        """Return the status changes after an id, in order, of one user's jobs or (``None``) of all."""
        where = (JobEventRow.id > event_id) & ~JobRow.deleted
        if user_id is not None:
            where &= JobRow.user_id == user_id
        with self._db.read() as db:
            rows = (
                JobEventRow.select(
                    JobEventRow.id.alias("event_id"),
                    JobEventRow.job_id,
                    JobEventRow.status_from,
                    JobEventRow.status_to,
                    JobEventRow.attempt,
                    JobEventRow.reason,
                    JobEventRow.at_ms,
                    JobRow.name,
                    JobRow.queue_name,
                )
                .join(JobRow, on=(JobRow.job_id == JobEventRow.job_id))
                .where(where)
                .order_by(JobEventRow.id)
                .limit(limit)
                .dicts()
                .execute(db)
            )
            return [JobEvent(**row) for row in rows]

    def seal_id(self, event_id: int, user_id: str) -> str:
        """Return an event's id as ``user_id`` may see it: it shows neither number nor order."""
        return self._sealed.seal_event_id(event_id, user_id)

    def open_id(self, sealed: str, user_id: str) -> int | None:
        """Return the id that was sealed for ``user_id``; ``None`` for anything else."""
        return self._sealed.open_event_id(sealed, user_id)
