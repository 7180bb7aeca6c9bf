"""Events: the status changes of jobs, runs and their nodes, in order."""

from typing import Any

from reactorcide.domain.jobs import JobEvent, JobStatus
from reactorcide.domain.runs import Node, Run, RunEvent, RunStatus
from reactorcide.store.connection import Connection
from reactorcide.store.projects import OF_MEMBER
from reactorcide.store.sealed import SealedFields

_INSERT_OF_RUN = (
    "INSERT INTO job_event (job_id, run_id, node, at_ms, status_from, status_to, attempt, reason)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT = (
    "INSERT INTO job_event (job_id, at_ms, status_from, status_to, attempt, reason) VALUES (?, ?, ?, ?, ?, ?)"
)

_OF_JOB = {
    "event_id": "job_event.id",
    "job_id": "job_id",
    "status_from": "status_from",
    "status_to": "status_to",
    "attempt": "job_event.attempt",
    "reason": "job_event.reason",
    "at_ms": "at_ms",
    "name": "name",
    "queue_name": "queue_name",
    "run_id": "job.run_id",
    "node": "job.node",
}
_OF_RUN = {
    "event_id": "job_event.id",
    "run_id": "run.run_id",
    "number": "number",
    "workflow_id": "workflow_id",
    "node": "node",
    "status_from": "status_from",
    "status_to": "status_to",
    "attempt": "job_event.attempt",
    "reason": "job_event.reason",
    "at_ms": "at_ms",
}
_JOBS = (
    f"SELECT {', '.join(_OF_JOB.values())} FROM job_event JOIN job USING (job_id) "  # noqa: S608  # our own text
    "LEFT JOIN run ON run.run_id = job.run_id "
    "WHERE job_event.id > ? AND NOT deleted "
)
_RUNS = (
    f"SELECT {', '.join(_OF_RUN.values())} FROM job_event JOIN run ON run.run_id = job_event.run_id "  # noqa: S608  # as above
    # That is what the index knows them by.
    "WHERE job_event.job_id = '' AND job_event.id > ? "
)
_OF_USER = f"AND CASE WHEN project_id IS NULL THEN {{}}.user_id = ? ELSE project_id IN ({OF_MEMBER}) END"
_OF_PROJECT = "AND project_id = ?"
_END = " ORDER BY job_event.id LIMIT ?"


def insert(db: Any, row: dict[str, Any], status_from: JobStatus | None) -> None:
    """Write the event of a status change, in the transaction that changes the job to ``row``."""
    db.execute_sql(
        _INSERT,
        (row["job_id"], row["updated_at_ms"], status_from, row["status"], row["attempt"], row["error"]),
    )


def insert_of_run(db: Any, run: Run, status_from: RunStatus | None) -> None:
    """Write the event of a run's change, in the transaction that changes it."""
    values = ("", run.run_id, None, run.updated_at_ms, status_from, run.status, run.attempt, run.reason)
    db.execute_sql(_INSERT_OF_RUN, values)


def insert_of_node(db: Any, run: Run, node: Node, before: Node) -> None:
    """Write the event of a node's change without a job."""
    status_from, status_to = before.status, node.status
    values = ("", run.run_id, node.name, run.updated_at_ms, status_from, status_to, run.attempt, node.reason)
    db.execute_sql(_INSERT_OF_RUN, values)


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

    def after(
        self, event_id: int, user_id: str | None, project_id: str | None = None, *, limit: int = 100
    ) -> list[JobEvent | RunEvent]:
        """Return the changes after an id, in order, of a project, or else of a user, or (``None``) of all.

        Changes in a project are visible to its members, whoever started the run.
        """
        which = ""
        of: tuple[str, ...] = ()
        if project_id is not None:
            which, of = _OF_PROJECT, (project_id,)
        elif user_id is not None:
            which, of = _OF_USER, (user_id, user_id)
        jobs, runs = (sql + which.format(table) + _END for sql, table in ((_JOBS, "job"), (_RUNS, "run")))
        values = (event_id, *of, limit)
        with self._db.read() as db:
            of_jobs = [dict(zip(_OF_JOB, row, strict=True)) for row in db.execute_sql(jobs, values)]
            of_runs = [dict(zip(_OF_RUN, row, strict=True)) for row in db.execute_sql(runs, values)]
        events: list[JobEvent | RunEvent] = [JobEvent(**row) for row in of_jobs]
        events += [RunEvent(**row) for row in of_runs]
        return sorted(events, key=lambda event: event.event_id)[:limit]

    def seal_id(self, event_id: int, user_id: str) -> str:
        """Return an event's id for ``user_id``, which reveals neither number nor order."""
        return self._sealed.seal_event_id(event_id, user_id)

    def open_id(self, sealed: str, user_id: str) -> int | None:
        """Return the id that was sealed for ``user_id``; ``None`` for anything else."""
        return self._sealed.open_event_id(sealed, user_id)
