"""Runs of workflows, and the nodes of their graphs."""

from typing import Any

from peewee import BigIntegerField, BlobField, BooleanField, CompositeKey, IntegerField, Model, TextField

_STATEMENTS = (
    "ALTER TABLE job ADD COLUMN run_id TEXT",
    "ALTER TABLE job ADD COLUMN node TEXT",
    "ALTER TABLE job_event ADD COLUMN run_id TEXT",
    "ALTER TABLE job_event ADD COLUMN node TEXT",
    "CREATE INDEX job_run ON job (run_id, created_at_ms, job_id) WHERE run_id IS NOT NULL",
    "CREATE INDEX job_event_run ON job_event (run_id, id) WHERE run_id IS NOT NULL",
    "CREATE INDEX run_created ON run (created_at_ms, run_id)",
    "CREATE INDEX run_user ON run (user_id, created_at_ms, run_id)",
    "CREATE UNIQUE INDEX run_number ON run (user_id, number)",
    "CREATE INDEX run_open ON run (updated_at_ms, run_id) WHERE completed_at_ms IS NULL",
)


def up(migrator: Any, db: Any) -> None:
    """Create two tables, columns that name a run, and indexes."""

    class RunRow(Model):
        run_id = TextField(primary_key=True)
        user_id = TextField()
        number = IntegerField()
        attempt = IntegerField()
        workflow_id = TextField()
        workflow_name = TextField()
        file = TextField()
        event_name = TextField()
        branch = TextField()
        event = TextField()
        git_url = TextField(null=True)
        git_ref = TextField(null=True)
        source_id = TextField(null=True)
        sha = TextField(null=True)
        status = TextField()
        reason = TextField(null=True)
        warnings = TextField(null=True)
        created_at_ms = BigIntegerField()
        updated_at_ms = BigIntegerField()
        completed_at_ms = BigIntegerField(null=True)
        sealed = BlobField()

        class Meta:
            table_name = "run"

    class NodeRow(Model):
        run_id = TextField()
        name = TextField()
        position = IntegerField()
        job_name = TextField()
        needs = TextField()
        condition = TextField()
        allow_failure = BooleanField()
        max_parallel = IntegerField(null=True)
        combination = TextField()
        skipped = TextField(null=True)
        state = TextField()
        reason = TextField(null=True)
        job_id = TextField(null=True)
        jobs = IntegerField()
        sealed = BlobField()

        class Meta:
            table_name = "node"
            primary_key = CompositeKey("run_id", "name")

    tables = [RunRow, NodeRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    for statement in _STATEMENTS:
        db.execute_sql(statement)
