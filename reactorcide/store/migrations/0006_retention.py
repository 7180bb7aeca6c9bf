"""Retention: pins, what a job takes of the disk, and the images that were pulled."""

from typing import Any

_STATEMENTS = (
    "ALTER TABLE job ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN stored_bytes INTEGER",
    # What is to be removed is decided by this index alone: the rows themselves may be long.
    """
    CREATE INDEX job_removable ON job
    (completed_at_ms, job_id, stored_bytes, deleted, pinned, task_open) WHERE completed_at_ms IS NOT NULL
    """,
    """
    CREATE TABLE pulled_image (
        image TEXT NOT NULL PRIMARY KEY,
        image_id TEXT NOT NULL,
        pulled_at_ms INTEGER NOT NULL,
        last_used_at_ms INTEGER NOT NULL
    )
    """,
    # While Corndogs is away a job becomes submit_failed again and again: what is not new is no event.
    "DROP TRIGGER job_changed",
    """
    CREATE TRIGGER job_changed AFTER UPDATE OF status ON job
    WHEN OLD.status <> NEW.status OR OLD.error IS NOT NEW.error BEGIN
        INSERT INTO job_event (job_id, at_ms, status_from, status_to, attempt, reason)
        VALUES (NEW.job_id, NEW.updated_at_ms, OLD.status, NEW.status, NEW.attempt, NEW.error);
    END
    """,
    # Beside the start of a job's container, at no further statement.
    """
    CREATE TRIGGER image_used AFTER UPDATE OF started_at_ms ON job WHEN NEW.started_at_ms IS NOT NULL BEGIN
        UPDATE pulled_image SET last_used_at_ms = NEW.started_at_ms
        WHERE image IN (NEW.runner_image, NEW.runner_image || ':latest');
    END
    """,
)


def up(migrator: Any, db: Any) -> None:
    """Add columns, index, table and trigger, and let repeated events be."""
    for statement in _STATEMENTS:
        db.execute_sql(statement)
