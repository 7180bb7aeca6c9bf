"""Numbers of runs that are not given after a restore."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; none were skipped so far."""
    db.execute_sql("ALTER TABLE instance ADD COLUMN run_numbers_skipped_up_to INTEGER NOT NULL DEFAULT 0")
