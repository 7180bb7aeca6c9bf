"""Concurrency groups of runs and of nodes."""

from typing import Any

_STATEMENTS = (
    "ALTER TABLE run ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE run ADD COLUMN group_key TEXT",
    "ALTER TABLE run ADD COLUMN when_full TEXT",
    "ALTER TABLE node ADD COLUMN group_key TEXT",
    "ALTER TABLE node ADD COLUMN when_full TEXT",
    "ALTER TABLE node ADD COLUMN is_held INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX run_turn ON run (turn)",
    "CREATE INDEX run_group ON run (group_key, status, turn, run_id) WHERE group_key IS NOT NULL",
    "CREATE UNIQUE INDEX run_place ON run (group_key) WHERE group_key IS NOT NULL AND status = 'running'",
    "CREATE INDEX node_group ON node (group_key, state) WHERE group_key IS NOT NULL",
    "CREATE UNIQUE INDEX node_place ON node (group_key) WHERE group_key IS NOT NULL AND state = 'active'",
)


def up(migrator: Any, db: Any) -> None:
    """Add columns and indexes; runs so far are in no group."""
    for statement in _STATEMENTS:
        db.execute_sql(statement)
