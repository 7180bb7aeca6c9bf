"""When a request with a commit status was last not answered."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add a column."""
    db.execute_sql("ALTER TABLE commit_status ADD COLUMN unanswered_at_ms INTEGER")
