"""The secret of a webhook before its renewal, and since when a webhook is disabled."""

from typing import Any

_STATEMENTS = (
    "ALTER TABLE webhook ADD COLUMN disabled_at_ms INTEGER",
    "ALTER TABLE webhook ADD COLUMN renewed_at_ms INTEGER",
    "ALTER TABLE webhook ADD COLUMN previous_sealed BLOB",
)


def up(migrator: Any, db: Any) -> None:
    """Add three columns."""
    for statement in _STATEMENTS:
        db.execute_sql(statement)
