"""Approvals of untrusted commits, and who gave them."""

from typing import Any

from reactorcide.store.connection import Connection

_GIVE = (
    "INSERT INTO approval (project_id, sha, user_id, at_ms) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (project_id, sha) DO UPDATE SET user_id = excluded.user_id, at_ms = excluded.at_ms"
)


class Approvals:
    """Approvals. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def give(self, project_id: str, sha: str, user_id: str, *, now_ms: int) -> None:
        """Approve a commit; replaces an earlier approval."""
        self._db.write(lambda db: db.execute_sql(_GIVE, (project_id, sha, user_id, now_ms)))

    def approved_at_ms(self, project_id: str, sha: str) -> int | None:
        """Return when a commit was approved last; ``None``: never."""
        sql = "SELECT at_ms FROM approval WHERE project_id = ? AND sha = ?"
        with self._db.read() as db:
            row = db.execute_sql(sql, (project_id, sha)).fetchone()
        return None if row is None else int(row[0])


def remove_of_project(db: Any, project_id: str) -> None:
    """Remove the approvals of a project, in the transaction that removes the project."""
    db.execute_sql("DELETE FROM approval WHERE project_id = ?", (project_id,))
