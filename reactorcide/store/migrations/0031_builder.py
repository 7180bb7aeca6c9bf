"""Which projects may build images."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; nobody has granted it to the projects that there are."""
    db.execute_sql("ALTER TABLE project ADD COLUMN builder INTEGER NOT NULL DEFAULT 0")
