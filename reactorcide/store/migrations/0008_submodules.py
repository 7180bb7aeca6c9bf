"""Whether a job's submodules are fetched."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; the jobs that there are have run without, and a rerun of one does so again."""
    db.execute_sql("ALTER TABLE job ADD COLUMN git_submodules INTEGER NOT NULL DEFAULT 0")
