"""Where the objects of this installation are."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; so far all objects are in the data directory."""
    db.execute_sql("ALTER TABLE instance ADD COLUMN objects_url TEXT")
