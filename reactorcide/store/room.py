"""The room for jobs of a project: how many it has queued or running, and which run gets the next place."""

from reactorcide.store.database import Connection

# Few runs of a project are open.
_USED = (
    "SELECT COUNT(*) FROM run JOIN node ON node.run_id = run.run_id "
    "WHERE run.project_id = ? AND run.completed_at_ms IS NULL AND run.run_id <> ? AND node.state = 'active'"
)
_NEXT = (
    "SELECT run_id FROM run WHERE project_id = ? AND completed_at_ms IS NULL AND waits_for_room "
    "ORDER BY turn, run_id LIMIT 1"
)


class Room:
    """The room for jobs of projects. Thread-safe; only reads."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def left(self, project_id: str | None, *, besides: str = "") -> int | None:
        """Return how many more jobs a project may have, without those of the run ``besides``.

        ``None``: there is no bound.
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
        """Return the run that gets the next place; ``None`` if there is no room, or nobody waits."""
        left = self.left(project_id)
        if left is not None and left <= 0:
            return None
        with self._db.read() as db:
            row = db.execute_sql(_NEXT, (project_id,)).fetchone()
        return None if row is None else str(row[0])
