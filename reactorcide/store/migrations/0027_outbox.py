"""The outbox: commit statuses, and the lanes in which things are sent."""

from typing import Any

from peewee import BigIntegerField, BlobField, BooleanField, CompositeKey, IntegerField, Model, TextField

_STATEMENTS = (
    "ALTER TABLE run ADD COLUMN status_context TEXT",
    "CREATE UNIQUE INDEX commit_status_context ON commit_status (project_id, sha, context)",
    "CREATE INDEX commit_status_created ON commit_status (project_id, created_at_ms, status_id)",
    "CREATE INDEX commit_status_owed ON commit_status (project_id, next_at_ms) WHERE next_at_ms IS NOT NULL",
    "CREATE INDEX outbox_lane_due ON outbox_lane (next_at_ms) WHERE next_at_ms IS NOT NULL",
)


def up(migrator: Any, db: Any) -> None:
    """Create two tables, and add a column; runs so far set no status."""

    class CommitStatusRow(Model):
        status_id = TextField(primary_key=True)
        project_id = TextField()
        sha = TextField()
        context = TextField()
        state = TextField()
        description = TextField()
        run_id = TextField()
        turn = IntegerField()
        created_at_ms = BigIntegerField()
        version = IntegerField()
        owed_since_ms = BigIntegerField(null=True)
        next_at_ms = BigIntegerField(null=True)
        failures = IntegerField()
        problem = TextField(null=True)
        sent_state = TextField(null=True)
        sent_description = TextField(null=True)
        sent_at_ms = BigIntegerField(null=True)

        class Meta:
            table_name = "commit_status"

    class OutboxLaneRow(Model):
        kind = TextField()
        owner_id = TextField()
        next_at_ms = BigIntegerField(null=True)
        is_paused = BooleanField()
        failures = IntegerField()
        resumed = IntegerField()
        problem = TextField(null=True)
        sealed = BlobField(null=True)

        class Meta:
            table_name = "outbox_lane"
            primary_key = CompositeKey("kind", "owner_id")

    tables = [CommitStatusRow, OutboxLaneRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    for statement in _STATEMENTS:
        db.execute_sql(statement)
