"""The job limit of a project: how many jobs it has queued or running, and which run gets the next slot."""

from reactorcide.store.connection import Connection

# A project has few unfinished runs.
_USED = (
    "SELECT COUNT(*) FROM run JOIN node ON node.run_id = run.run_id "
    "WHERE run.project_id = ? AND run.completed_at_ms IS NULL AND run.run_id <> ? AND node.state = 'active'"
)
_NEXT = (
    "SELECT run_id FROM run WHERE project_id = ? AND completed_at_ms IS NULL AND waits_for_room "
    "ORDER BY turn, run_id LIMIT 1"
)


class Room:
    """The job limits of projects. Thread-safe; only reads."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def free(self, project_id: str | None, *, besides: str = "") -> int | None:
        """Return how many more jobs a project may have, not counting those of the run ``besides``.

        ``None``: no limit.
        """
        if project_id is None:
            return None
        with self._db.read() as db:
            sql = "SELECT max_running FROM project WHERE project_id = ?"
            row = db.execute_sql(sql, (project_id,)).fetchone()
            if row is None or row[0] is None:
                return None
            (used,) = db.execute_sql(_USED, (project_id, besides)).fetchone()
        return int(row[0]) - int(used)

    def next_run(self, project_id: str) -> str | None:
        """Return the run that gets the next slot; ``None`` if there is none, or no run waits."""
        free = self.free(project_id)
        if free is not None and free <= 0:
            return None
        with self._db.read() as db:
            row = db.execute_sql(_NEXT, (project_id,)).fetchone()
        return None if row is None else str(row[0])
