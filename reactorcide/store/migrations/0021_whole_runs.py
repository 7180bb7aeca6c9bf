"""Runs that are pinned, counted and removed as a whole."""

from typing import Any

_STATEMENTS = (
    "ALTER TABLE run ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX run_counted ON run (user_id, project_id, workflow_id, branch, event_name, status)",
    "DROP INDEX job_run",
    "CREATE INDEX job_run ON job (run_id, created_at_ms, job_id, deleted) WHERE run_id IS NOT NULL",
    "DROP INDEX job_removable",
    "CREATE INDEX job_removable ON job "
    "(completed_at_ms, job_id, stored_bytes, deleted, pinned, task_open, run_id) "
    "WHERE completed_at_ms IS NOT NULL",
)


def up(migrator: Any, db: Any) -> None:
    """Add a column and an index, and columns to two indexes."""
    for statement in _STATEMENTS:
        db.execute_sql(statement)
