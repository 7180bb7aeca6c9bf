"""Growing logs in the database, for services that share one."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Create the tables; where the data directory has the logs they stay empty."""
    db.execute_sql(
        "CREATE TABLE log_file (job_id TEXT NOT NULL, attempt INTEGER NOT NULL, name TEXT NOT NULL, "
        "writer TEXT NOT NULL, base_bytes INTEGER NOT NULL, size_bytes INTEGER NOT NULL, "
        "PRIMARY KEY (job_id, attempt, name))"
    )
    db.execute_sql(
        "CREATE TABLE log_piece (job_id TEXT NOT NULL, attempt INTEGER NOT NULL, name TEXT NOT NULL, "
        "start_at INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (job_id, attempt, name, start_at))"
    )
