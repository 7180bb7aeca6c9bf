"""How much of a repository's history is fetched."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the columns; the jobs that there are have run with one commit and without tags."""
    db.execute_sql("ALTER TABLE job ADD COLUMN git_depth INTEGER NOT NULL DEFAULT 1")
    db.execute_sql("ALTER TABLE job ADD COLUMN git_tags INTEGER NOT NULL DEFAULT 0")
