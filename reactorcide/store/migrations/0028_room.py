"""Which runs wait for room among the jobs of their project."""

from typing import Any

_STATEMENTS = (
    "ALTER TABLE run ADD COLUMN waits_for_room INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX run_project_open ON run (project_id, turn, waits_for_room, run_id) "
    "WHERE completed_at_ms IS NULL",
)


def up(migrator: Any, db: Any) -> None:
    """Add a column and an index."""
    for statement in _STATEMENTS:
        db.execute_sql(statement)
