"""How many tests the jobs of runs have run."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; of the jobs that there are it is not known."""
    db.execute_sql("ALTER TABLE job ADD COLUMN tests TEXT")
