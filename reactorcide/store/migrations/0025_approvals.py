"""Runs of a stranger's code, and their approval."""

from typing import Any

from peewee import BigIntegerField, CompositeKey, Model, TextField

_STATEMENTS = (
    "ALTER TABLE run ADD COLUMN is_trusted INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE run ADD COLUMN is_held INTEGER NOT NULL DEFAULT 0",
    # So far that was what told the runs of forks.
    """UPDATE run SET is_trusted = 0 WHERE cache_scope LIKE '%"is_writable": false%'""",
    "CREATE INDEX run_held ON run (project_id, sha) WHERE is_held",
)


def up(migrator: Any, db: Any) -> None:
    """Create a table, two columns and an index."""

    class ApprovalRow(Model):
        project_id = TextField()
        sha = TextField()
        user_id = TextField()
        at_ms = BigIntegerField()

        class Meta:
            table_name = "approval"
            primary_key = CompositeKey("project_id", "sha")

    with db.bind_ctx([ApprovalRow]):
        db.create_tables([ApprovalRow])
    for statement in _STATEMENTS:
        db.execute_sql(statement)
