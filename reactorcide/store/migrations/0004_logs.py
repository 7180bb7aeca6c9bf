"""Whether a log is truncated; and ids of status changes that are never given twice.

A reader of status changes goes on after the last id that it has seen. Without AUTOINCREMENT, SQLite gives the
highest id anew once the row that had it is gone, as it is with its deleted job.
"""

from typing import Any

# They name the table, which therefore could not be renamed under them.
_TRIGGERS = ("job_created", "job_changed")


def up(migrator: Any, db: Any) -> None:
    """Add the columns, and make the table of status changes anew."""
    for table in ("job", "attempt"):
        db.execute_sql(f"ALTER TABLE {table} ADD COLUMN log_truncated INTEGER NOT NULL DEFAULT 0")
    triggers = [
        db.execute_sql(
            "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?", (name,)
        ).fetchone()[0]
        for name in _TRIGGERS
    ]
    for name in _TRIGGERS:
        db.execute_sql(f"DROP TRIGGER {name}")
    db.execute_sql("ALTER TABLE job_event RENAME TO job_event_before")
    db.execute_sql("DROP INDEX jobeventrow_job_id")
    db.execute_sql(
        """
        CREATE TABLE job_event (
            id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            job_id TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            status_from TEXT,
            status_to TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            reason TEXT
        )
        """
    )
    db.execute_sql("INSERT INTO job_event SELECT * FROM job_event_before ORDER BY id")
    db.execute_sql("DROP TABLE job_event_before")
    db.execute_sql("CREATE INDEX jobeventrow_job_id ON job_event (job_id)")
    for trigger in triggers:
        db.execute_sql(trigger)
