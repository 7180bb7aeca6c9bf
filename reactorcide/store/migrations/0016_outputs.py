"""What jobs of runs have written for those that need them."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; the jobs that there are have written nothing."""
    db.execute_sql("ALTER TABLE job ADD COLUMN outputs BLOB")
