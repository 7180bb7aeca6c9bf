"""When the hand-over of an attempt's command began, and to which life of its container; preparations killed.

An attempt that an older version has started was handed over with its start, and by no hand-over of this kind.
"""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the columns."""
    db.execute_sql("ALTER TABLE job ADD COLUMN killed_preparations INTEGER NOT NULL DEFAULT 0")
    db.execute_sql("ALTER TABLE attempt ADD COLUMN handing_over_at_ms INTEGER")
    db.execute_sql("ALTER TABLE attempt ADD COLUMN container_started_at TEXT")
