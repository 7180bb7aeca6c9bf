"""When each owner of an uploaded source has used it last."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; up to now nobody knows more than when anybody has."""
    db.execute_sql("ALTER TABLE source_owner ADD COLUMN last_used_at_ms INTEGER NOT NULL DEFAULT 0")
    db.execute_sql(
        "UPDATE source_owner SET last_used_at_ms = "
        "(SELECT last_used_at_ms FROM source WHERE source.source_id = source_owner.source_id)"
    )
