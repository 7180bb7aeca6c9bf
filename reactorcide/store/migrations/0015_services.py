"""The services of a job."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; the jobs that there are have none."""
    db.execute_sql("ALTER TABLE job ADD COLUMN services TEXT")
